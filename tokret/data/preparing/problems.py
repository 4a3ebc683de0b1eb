"""Photos that a dataset cannot contain: named in one line, listed in a CSV."""

from collections.abc import Sequence
from typing import NamedTuple

FIRST = 3  # photos that a message names
FILE = "problems.csv"


class Problem(NamedTuple):
    """A photo that cannot be used."""

    photo: str  # its name in the dataset
    place: str  # the file or archive that it is in, or should be in
    problem: str  # what is wrong, in a few words


def summary(problems: Sequence[Problem]) -> str:
    """Names the first problems, as `photo (problem)`."""
    words = [f"{photo} ({problem})" for photo, _, problem in problems[:FIRST]]
    more = len(problems) - FIRST
    return ", ".join(words) + (f" and {more:,} more" if more > 0 else "")
