"""Which checkpoints of a run are kept: the newest, and the best by a validation."""

import dataclasses
import math
from collections.abc import Mapping

from tokret.arguments import choose, within

# What a validation measures; whether more of it is better.
MEASURES = {"loss": False, "top1": True, "top5": True}

# By step, what was measured when it was saved; {} where no validation took place.
Measured = Mapping[int, Mapping[str, float]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retention:
    """What is kept.

    Attributes:
      keep: how many of the newest.
      keep_best: the measure by which the best is kept too; "" for none.
    """

    keep: int
    keep_best: str

    def __post_init__(self) -> None:
        within("keep", self.keep, 1)
        choose({"": None, **MEASURES}, self.keep_best, "keep_best")

    def steps_to_remove(self, measured: Measured) -> list[int]:
        """Lists the steps that need not be kept, oldest first."""
        kept = {*sorted(measured)[-self.keep :], best_step(measured, self.keep_best)}
        return sorted(measured.keys() - kept)


def best_step(measured: Measured, name: str) -> int | None:
    """Returns the best step by a measure, of equals the newest.

    It is None for the measure "", and if nothing was measured or no number came out.
    """
    sign = 1 if MEASURES.get(name) else -1
    ranked = [
        (sign * numbers[name], step)
        for step, numbers in measured.items()
        if name in numbers and not math.isnan(numbers[name])
    ]
    return max(ranked)[1] if ranked else None
