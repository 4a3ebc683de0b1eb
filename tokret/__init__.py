"""tokret: token-based image retrieval in JAX (AAAI 2022, arXiv 2112.06159)."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokret.api import Index, Model, load, open_index
    from tokret.data.ground_truth import GroundTruth, read_ground_truth
    from tokret.errors import UserError
    from tokret.retrieval.leave_one_out import leave_one_out
    from tokret.retrieval.metrics import evaluate

__version__ = "0.2.0"
__all__ = [
    "GroundTruth",
    "Index",
    "Model",
    "UserError",
    "evaluate",
    "leave_one_out",
    "load",
    "open_index",
    "read_ground_truth",
]
# Imported when they are used: `import tokret` alone imports no JAX.
_MODULES = {
    **dict.fromkeys(("Index", "Model", "load", "open_index"), "tokret.api"),
    **dict.fromkeys(("GroundTruth", "read_ground_truth"), "tokret.data.ground_truth"),
    "UserError": "tokret.errors",
    "evaluate": "tokret.retrieval.metrics",
    "leave_one_out": "tokret.retrieval.leave_one_out",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'tokret' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
