"""What the doctor says: a table, and a CSV of everything that is wrong."""

import collections
import csv
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tokret.data.checking.examination import Finding
from tokret.data.checking.sources import Count


class Digests:
    """Digests of millions of photos, and their names, to find those that are alike."""

    SIZE = 16  # bytes of each that are kept

    def __init__(self) -> None:
        self._digests = bytearray()
        self._names: list[str] = []

    def add(self, name: str, digest: bytes) -> None:
        """Takes a photo."""
        self._digests += digest[: self.SIZE]
        self._names.append(name)

    def duplicates(self) -> list[Finding]:
        """Every photo that has the bytes of another, with the first of them by name."""
        numbers = np.array(np.frombuffer(bytes(self._digests) or b"", np.uint64))
        numbers = numbers.reshape(-1, 2)
        order = np.lexsort(numbers.T)
        same = np.zeros(len(order) + 1, bool)
        same[1:-1] = (numbers[order[1:]] == numbers[order[:-1]]).all(1)
        groups = np.cumsum(~same[:-1])  # one number for each digest
        alike: dict[int, list[str]] = collections.defaultdict(list)
        for place in np.flatnonzero(same[:-1] | same[1:]).tolist():
            alike[int(groups[place])].append(self._names[order[place]])
        return sorted(
            Finding(name, "duplicate", f"the same bytes as {first}")
            for first, *others in map(sorted, alike.values())
            for name in others
        )


def write_csv(path: Path, findings: Sequence[Finding]) -> None:
    """Writes what is wrong (name,problem,detail), whole or not at all."""
    partial = path.with_name(path.name + ".tmp")
    with partial.open(
        "w", newline="", encoding="utf-8", errors="backslashreplace"
    ) as file:
        writer = csv.writer(file)
        writer.writerow(Finding._fields)
        writer.writerows(findings)
    os.replace(partial, path)


def table(counts: Sequence[Count], findings: Sequence[Finding], examined: int) -> str:
    """Returns counts, and how many there are of each problem, as columns of text."""
    rows = [("what", "found", "published")]
    for what, found, expected in counts:
        rows.append((what, f"{found:,}", "" if expected is None else f"{expected:,}"))
    rows.append(("photos examined", f"{examined:,}", ""))
    kinds = collections.Counter(finding.problem for finding in findings)
    firsts = {finding.problem: finding for finding in reversed(findings)}
    problems = [("problem", "count", "the first")]
    for kind, count in kinds.most_common():
        first = firsts[kind]
        problems.append((kind, f"{count:,}", f"{first.name} ({first.detail})"))
    parts = [_columns(rows)]
    parts.append(_columns(problems) if findings else "nothing is wrong")
    return "\n\n".join(parts)


def _columns(rows: Sequence[tuple[str, str, str]]) -> str:
    first, second = (max(len(row[i]) for row in rows) for i in (0, 1))
    lines = [f"{a:<{first}}  {b:>{second}}  {c}".rstrip() for a, b, c in rows]
    return "\n".join(line[:200] for line in lines)
