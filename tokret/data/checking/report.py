"""The report of a check: counts and defects, a table, and duplicates."""

import collections
import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tokret.data.checking.photo_checks import Defect


class Count(NamedTuple):
    """The number of something, and the number that is expected, if any."""

    what: str
    found: int
    expected: int | None


@dataclasses.dataclass
class CheckReport:
    """The defects, notes and counts (of photos, classes, archives) of a check."""

    defects: list[Defect] = dataclasses.field(default_factory=list)
    counts: list[Count] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)  # on what was skipped

    def add_defect(self, name: str, problem: str, detail: str) -> None:
        """Adds something that is wrong."""
        self.defects.append(Defect(name, problem, detail))

    def add_count(self, what: str, found: int, expected: int | None = None) -> None:
        """Adds a count; one that differs from the expected one is a defect."""
        self.counts.append(Count(what, found, expected))
        if expected not in (None, found):
            self.add_defect(
                what, "count", f"{found:,} exist, {expected:,} are expected"
            )


class Digests:
    """Digests and names of millions of photos, to find duplicates."""

    SIZE = 16  # bytes of each that are kept

    def __init__(self) -> None:
        self._digests = bytearray()
        self._names: list[str] = []

    def add(self, name: str, digest: bytes) -> None:
        """Adds a photo."""
        self._digests += digest[: self.SIZE]
        self._names.append(name)

    def duplicates(self) -> list[Defect]:
        """All photos but the first, by name, of those with the same bytes."""
        numbers = np.array(np.frombuffer(bytes(self._digests) or b"", np.uint64))
        numbers = numbers.reshape(-1, 2)
        order = np.lexsort(numbers.T)
        same = np.zeros(len(order) + 1, bool)
        same[1:-1] = (numbers[order[1:]] == numbers[order[:-1]]).all(1)
        groups = np.cumsum(~same[:-1])  # one number for each digest
        names: dict[int, list[str]] = collections.defaultdict(list)
        for row in np.flatnonzero(same[:-1] | same[1:]).tolist():
            names[int(groups[row])].append(self._names[order[row]])
        return sorted(
            Defect(name, "duplicate", f"the same bytes as {first}")
            for first, *others in map(sorted, names.values())
            for name in others
        )


def format_table(
    counts: Sequence[Count], defects: Sequence[Defect], checked: int
) -> str:
    """Returns counts, and how many defects there are of each kind, as text."""
    known = any(count.expected is not None for count in counts)
    rows = [("what", "found", "expected" if known else "")]
    for what, found, expected in counts:
        rows.append((what, f"{found:,}", "" if expected is None else f"{expected:,}"))
    rows.append(("photos checked", f"{checked:,}", ""))
    if not defects:
        return f"{_columns(rows)}\n\nno defects"
    kinds = collections.Counter(defect.problem for defect in defects)
    firsts = {defect.problem: defect for defect in reversed(defects)}
    problems = [("problem", "count", "the first")]
    for kind, count in kinds.most_common():
        first = firsts[kind]
        problems.append((kind, f"{count:,}", f"{first.name} ({first.detail})"))
    return f"{_columns(rows)}\n\n{_columns(problems)}"


def _columns(rows: Sequence[tuple[str, str, str]]) -> str:
    first, second = (max(len(row[i]) for row in rows) for i in (0, 1))
    lines = [f"{a:<{first}}  {b:>{second}}  {c}".rstrip() for a, b, c in rows]
    return "\n".join(line[:200] for line in lines)
