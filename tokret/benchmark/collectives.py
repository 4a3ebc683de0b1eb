"""Collectives of a compiled program, read from its HLO text."""

import math
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

KINDS = (
    *("all-reduce", "all-gather", "reduce-scatter", "all-to-all"),
    *("collective-permute", "collective-broadcast", "ragged-all-to-all"),
)
# An asynchronous operation is counted where it starts.
_OPERATION = re.compile(rf" = (.+?) ({'|'.join(KINDS)})(-start)?\(")
_SHAPE = re.compile(r"\b([a-z]+\d*)[a-z0-9]*\[([\d,]*)\]")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) .*\{$")
_CALLED = re.compile(r"\b(?:body|condition|to_apply|calls)=%?([\w.\-]+)")
_BODY = re.compile(r" while\(.*\bbody=%?([\w.\-]+)")
_LISTED = re.compile(r"replica_groups=\{((?:\{[\d,]*\},?)*)\}")
_IOTA = re.compile(r"replica_groups=(\[[\d,]+\])<=(\[[\d,]+\](?:T\([\d,]+\))?)")
_MESH = re.compile(
    r"replica_groups=mesh\[([^\]]*)\]"
    r"(?:, device_ids=\((\[[\d,]+\](?:T\([\d,]+\))?)\))? \{([^}]*)\}"
)


class Collective(NamedTuple):
    """One operation among devices."""

    kind: str  # its name in HLO, one of `KINDS`
    # of its result on a device, each as dtype and sides
    shapes: tuple[tuple[str, tuple[int, ...]], ...]
    # devices that take part together, numbered along the mesh, its last axis fastest;
    # none if the text has no groups
    groups: frozenset[frozenset[int]]
    looped: bool  # whether it is in a loop, and so runs once an iteration

    @property
    def bytes(self) -> int:
        """Bytes of its result on a device."""
        bits = sum(_bits(dtype) * math.prod(sides) for dtype, sides in self.shapes)
        return -(-bits // 8)

    @property
    def group_size(self) -> int:
        """Devices of a group; 0 if not known."""
        return max(map(len, self.groups), default=0)


def traffic(
    collectives: Iterable[Collective], iterations: int = 1
) -> list[dict[str, Any]]:
    """Sums up the collectives of a program and of its loop's iterations.

    Returns:
      For each kind and size of group, 0 if not known: kind, group_size, the number of
      collectives, bytes of their results on a device in all, and of the largest; the
      most bytes first.
    """
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for one in collectives:
        kind, size, times = one.kind, one.group_size, iterations if one.looped else 1
        none = {"kind": kind, "group_size": size, "number": 0, "bytes": 0, "largest": 0}
        each = found.setdefault((kind, size), none)
        each["number"] += times
        each["bytes"] += times * one.bytes
        each["largest"] = max(each["largest"], one.bytes)
    return sorted(found.values(), key=lambda each: -each["bytes"])


def read_collectives(text: str) -> list[Collective]:
    """Reads the collectives of a module's text, as `Compiled.as_text` returns it."""
    computations = dict(_computations(text))
    looped = _in_loops(computations)
    found = []
    for name, lines in computations.items():
        for line in lines:
            if match := _OPERATION.search(line):
                shapes = [(dtype, _numbers(s)) for dtype, s in _SHAPE.findall(match[1])]
                if match[3] and match[2] != "all-reduce":
                    # The result of a start begins with its operands.
                    shapes = [each for each in shapes if each != ("u32", ())]
                    shapes = shapes[len(shapes) // 2 :]
                # A TPU's fusion of a sum and a slice of it.
                scatters = "all-reduce-scatter" in name
                kind = "reduce-scatter" if scatters else match[2]
                groups = _groups(line)
                found.append(Collective(kind, tuple(shapes), groups, name in looped))
    return found


def _computations(text: str) -> Iterator[tuple[str, list[str]]]:
    name, lines = "", list[str]()
    for line in text.splitlines():
        if match := _COMPUTATION.match(line):
            name, lines = match[1], []
        elif line == "}":
            yield name, lines
        else:
            lines.append(line)


def _in_loops(computations: dict[str, list[str]]) -> set[str]:
    """Names of loops' bodies and of all computations that they call."""
    texts = {name: "\n".join(lines) for name, lines in computations.items()}
    reached: set[str] = set()
    waiting = {body for text in texts.values() for body in _BODY.findall(text)}
    while waiting:
        reached |= waiting
        called = (_CALLED.findall(texts.get(name, "")) for name in waiting)
        waiting = {name for names in called for name in names} - reached
    return reached


def _bits(dtype: str) -> int:
    found = re.search(r"\d+", dtype)
    return int(found[0]) if found else 8 * (dtype == "pred")


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text))


def _counted(text: str) -> np.ndarray:
    """Reads [2,2]T(1,0): devices 0 to 3 in two rows, with their axes in that order."""
    sides, _, order = text.partition("T")
    counted = np.arange(math.prod(_numbers(sides))).reshape(_numbers(sides))
    return counted.transpose(_numbers(order)) if order else counted


def _groups(line: str) -> frozenset[frozenset[int]]:
    """Reads the three ways in which HLO writes groups of devices."""
    rows: list[list[int]] = []
    if match := _LISTED.search(line):
        rows = [list(_numbers(each)) for each in match[1].split("},")]
    elif match := _IOTA.search(line):
        rows = _counted(match[2]).reshape(_numbers(match[1])).tolist()
    elif match := _MESH.search(line):
        sides = dict(re.findall(r"'(\w+)'=(\d+)", match[1]))
        shape = [int(side) for side in sides.values()]
        devices = _counted(match[2] or f"[{math.prod(shape)}]").reshape(shape)
        axes = [list(sides).index(name) for name in re.findall(r"'(\w+)'", match[3])]
        last = range(-len(axes), 0)
        size = math.prod(shape[axis] for axis in axes)
        rows = np.moveaxis(devices, axes, last).reshape(-1, size).tolist()
    return frozenset(frozenset(row) for row in rows if row)
