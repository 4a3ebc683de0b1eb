"""Which checkpoints of a run are kept: the newest, and the best by a validation."""

import math
from collections.abc import Mapping

from tokret.arguments import choose, within

# What a validation measures; whether more of it is better.
MEASURES = {"loss": False, "top1": True, "top5": True}

# By step, what was measured when it was saved; {} where no validation took place.
Measured = Mapping[int, Mapping[str, float]]


def steps_to_remove(measured: Measured, *, keep: int, keep_best: str) -> list[int]:
    """Lists all steps but the newest `keep` and the best by a measure, oldest first.

    Raises:
      UserError: if `keep` is less than 1, or `keep_best` no measure and not "".
    """
    within("keep", keep, 1)
    choose({"": None, **MEASURES}, keep_best, "keep_best")
    kept = {*sorted(measured)[-keep:], best_step(measured, keep_best)}
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
