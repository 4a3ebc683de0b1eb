"""Learns from an index which similarity means that two photos are nearly the same.

There is no such number for all models and libraries: it depends on how crowded the
library is, since different photos are similar by chance. The average number of other
photos within a distance x = 1 - cosine of a photo grows as a power of x, whose exponent
is half the dimension of the library around its photos. It is fitted where a photo has
`FEW` to `MANY` neighbours: those are other photos, as near-duplicates are fewer, and
near enough for the power law. Extended to smaller distances it gives how many
neighbours are due to chance, and the threshold is where these are one pair in
`CHANCE` photos; near it, in the widest gap between the similarities of the index.
"""

import math
from collections.abc import Iterable
from typing import Annotated

import msgspec
import numpy as np

from tokret.shapes import Float, Int

CHANCE = 1000  # photos among which there is one pair by chance
FEW, MANY = 5.0, 50.0  # neighbours of a photo
LEAST = 200  # photos that are enough to learn from
DEFAULT = 0.98  # the threshold of fewer
SAMPLE = 1000  # photos that are compared with all
GROWTH = 0.1  # of the index, after which the threshold is learned again
NEAR = 3.0  # factor of the number of neighbours within which a gap is searched for
SMALLEST = 1e-7  # distance; smaller ones are rounding
# Distances are counted by the upper half of a float32: bins of at most 0.8 %.
SHIFT, BINS = 16, 0x4080
Tile = Float[np.ndarray, "_ d"]
Counts = Float[np.ndarray, " b"]


class Threshold(msgspec.Struct, frozen=True):
    """The similarity from which photos of an index are near-duplicates."""

    score: Annotated[float, msgspec.Meta(ge=-1, le=1)]  # a cosine
    photos: int  # of the index when it was learned, without copies
    weights: str  # digest of the model's
    fraction: float  # of the photos that have a near-duplicate, by a sample
    dimension: float  # of the library around its photos; 0 if it was too small

    def suits(self, photos: int, weights: str) -> bool:
        """Whether it is that of an index: of its model, and about its size."""
        changed = abs(photos - self.photos) > GROWTH * self.photos
        return self.weights == weights and not changed


def learn_threshold(tiles: Iterable[Tile], weights: str, seed: int = 0) -> Threshold:
    """Learns the threshold of an index.

    Args:
      tiles: the descriptors of its photos, a row for each content, L2-normalised. They
        are iterated over three times.
      weights: the digest of the model's.
      seed: of the choice of the photos that are compared with all.
    """
    total = sum(map(len, tiles))
    chosen = np.sort(np.random.default_rng(seed).permutation(total)[:SAMPLE])
    counts, nearest = _count(tiles, chosen)
    score, dimension = DEFAULT, 0.0
    fit = _fit(counts) if total >= LEAST else None
    if fit is not None:
        distance, dimension = fit
        score = round(1 - _into_gap(counts, distance, dimension), 6)
    fraction = float((nearest >= score).mean())
    return Threshold(score, total, weights, fraction, dimension)


def _count(
    tiles: Iterable[Tile], chosen: Int[np.ndarray, " m"]
) -> tuple[Counts, Float[np.ndarray, " m"]]:
    """Compares some photos with all.

    Returns:
      The average number of neighbours in each bin of the distance, and the highest
      similarity of each photo.
    """
    sample = np.concatenate([tile[rows] for tile, rows, _ in _parts(tiles, chosen)])
    counts = np.zeros(BINS, np.int64)
    nearest = np.full(len(sample), -1.0, np.float32)
    for tile, rows, places in _parts(tiles, chosen):
        scores = sample @ tile.T
        scores[places, rows] = -1  # the photo itself
        np.maximum(nearest, scores.max(axis=1), out=nearest)
        distances = np.maximum(1 - scores, np.float32(SMALLEST))
        bins = distances.view(np.int32).ravel() >> SHIFT
        counts += np.bincount(bins, minlength=BINS)[:BINS]
    return counts / len(sample), nearest


def _parts(
    tiles: Iterable[Tile], chosen: Int[np.ndarray, " m"]
) -> Iterable[tuple[Tile, Int[np.ndarray, " r"], Int[np.ndarray, " r"]]]:
    """Yields tiles, each with the rows of chosen photos and their places among them."""
    first = 0
    for tile in tiles:
        places = np.flatnonzero((chosen >= first) & (chosen < first + len(tile)))
        yield tile, chosen[places] - first, places
        first += len(tile)


def _edges() -> Float[np.ndarray, " b"]:
    """The upper end of each bin."""
    return (np.arange(1, BINS + 1, dtype=np.int32) << SHIFT).view(np.float32)


def _fit(counts: Counts) -> tuple[float, float] | None:
    """The distance with a chance pair in `CHANCE` photos, and the dimension."""
    within = np.cumsum(counts)  # neighbours up to each edge
    few, many = np.interp([FEW, MANY], within, np.log(_edges())).tolist()
    if not many > few:
        return None  # as many near-duplicates as other photos
    exponent = math.log(MANY / FEW) / (many - few)
    distance = math.exp(few + math.log(2 / CHANCE / FEW) / exponent)
    return max(distance, SMALLEST), 2 * exponent


def _into_gap(counts: Counts, distance: float, dimension: float) -> float:
    """Moves a distance into the middle of the widest gap near it."""
    reach, edges = NEAR ** (2 / dimension), _edges()
    low, high = np.searchsorted(edges, [distance / reach, distance * reach])
    filled = np.flatnonzero(counts[low:high]) + low
    # A gap is from the upper end of a filled bin to the lower end of the next.
    ends = np.concatenate([[distance / reach], edges[filled]])
    begins = np.concatenate([edges[filled - 1], [distance * reach]])
    widest = int(np.argmax(np.log(begins) - np.log(ends)))
    return float(np.sqrt(ends[widest] * begins[widest]))
