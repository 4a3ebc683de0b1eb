"""Other programs of the same work, which comparisons time beside tokret."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Call = Callable[[], object]
Makers = Mapping[str, Callable[[], Call]]  # by form: makes the call that is timed
Search = Callable[[np.ndarray], object]  # of [Q, D] queries


class Rivals:
    """No other programs: tokret alone is timed.

    A clone's `benchmarks` package has a subclass with PyTorch, Pillow, faiss and NumPy.
    """

    packages: tuple[str, ...] = ()  # installed packages whose versions results record
    # why a result has no other program in it, "" if it has
    note = "tokret alone; a clone's `python -m benchmarks` times PyTorch beside it"

    def forms(self, work: str, trunk: str, dtype: str, *inputs: Any) -> Makers:
        """Returns other programs of inference, training or extraction, by form.

        Inputs are normalised images [b, h, w, 3]; or images [b, h, w, 3] uint8, labels
        [b], numbers of classes and steps; or photos [h, w, 3] uint8 and scales.
        """
        return {}

    def views(self) -> Any:
        """Returns an `input_pipeline.ViewMaker`; None for none."""
        return None

    def searches(self, database: np.ndarray, k: int) -> Mapping[str, Search]:
        """Returns exact searches for the best k of a database [N, D], by name."""
        return {}

    def release(self) -> None:
        """Frees the device memory that nothing refers to any more."""

    def judge(self, result: dict[str, Any], report: str) -> tuple[dict[str, Any], str]:
        """Returns a benchmark's result and report, perhaps with targets added."""
        return result, report
