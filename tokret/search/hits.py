"""The hits of a search."""

from collections.abc import Iterable
from typing import NamedTuple


class Hit(NamedTuple):
    """A retrieved photo: its path from the root, and the cosine of the descriptors."""

    name: str
    score: float
    id: str = ""  # of its content, 16 hex digits
    label: str = ""  # the name of its folder; "" directly in the root
    near_duplicates: int = 0  # hits nearly the same as this one that were hidden


class Member(NamedTuple):
    """A photo of a group: a file."""

    name: str  # its path from the root
    id: str
    label: str
    score: float  # highest cosine with another photo of the group; of copies 1


def shown_score(score: float) -> float:
    """A cosine as it is put out: rounding may have left it just outside [-1, 1]."""
    return max(-1.0, min(1.0, score))


def first_hits(hits: Iterable[Hit], top: int) -> list[Hit]:
    """The best hits, the best first; ties by name."""
    return sorted(hits, key=lambda hit: (-hit.score, hit.name))[:top]
