"""PyTorch, if it is there."""

import importlib.util
from types import ModuleType


def import_rival() -> ModuleType | None:
    """Returns tokret.benchmark.torch_rival; None where PyTorch is not installed."""
    if importlib.util.find_spec("torch") is None:
        return None
    from tokret.benchmark import torch_rival

    return torch_rival
