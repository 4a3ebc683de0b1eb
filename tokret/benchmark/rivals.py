"""PyTorch, if it is there."""

import importlib.util
import sys
from types import ModuleType


def import_rival() -> ModuleType | None:
    """Returns tokret.benchmark.torch_rival; None where PyTorch is not installed."""
    if importlib.util.find_spec("torch") is None:
        return None
    from tokret.benchmark import torch_rival

    return torch_rival


def release() -> None:
    """Lets PyTorch give back what it keeps of a device's memory, if it was used."""
    if "tokret.benchmark.torch_rival" in sys.modules:
        sys.modules["tokret.benchmark.torch_rival"].release()
