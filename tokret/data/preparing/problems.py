"""Photos that a dataset cannot take: said in one line, listed in a CSV."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

FIRST = 10  # photos that a message names
FILE = "problems.csv"


class Problem(NamedTuple):
    """A photo that cannot be used.

    Attributes:
      photo: its name in the dataset.
      place: the file, or the archive, where it lies or should lie.
      problem: what is wrong, in a few words.
    """

    photo: str
    place: str
    problem: str


def write(path: Path, problems: Sequence[Problem]) -> None:
    """Writes problems as CSV (photo,place,problem), whole or not at all."""
    partial = path.with_name(path.name + ".tmp")
    # Names that are no valid text stand in a CSV all the same, escaped.
    with partial.open(
        "w", newline="", encoding="utf-8", errors="backslashreplace"
    ) as file:
        writer = csv.writer(file)
        writer.writerow(Problem._fields)
        writer.writerows(problems)
    os.replace(partial, path)


def summary(problems: Sequence[Problem]) -> str:
    """Names the first ten problems, as `photo (problem)`."""
    words = [f"{photo} ({problem})" for photo, _, problem in problems[:FIRST]]
    more = len(problems) - FIRST
    return ", ".join(words) + (f" and {more:,} more" if more > 0 else "")
