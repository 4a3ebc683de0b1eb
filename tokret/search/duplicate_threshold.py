"""Learns from an index which similarity means that two photos are nearly the same.

There is no such number for all models and libraries: it depends on how crowded the
library is. Of two different photos some are similar by chance. The average number of
other photos within a distance x = 1 - cosine of a photo grows as a power of x, whose
exponent is the dimension of the library around its photos. It is fitted where there are
`FEW` to `MANY` neighbours: these are other photos, since near-duplicates are fewer, and
they are close enough for the power law. Continued to smaller distances it gives how
many neighbours chance alone makes, and the threshold is where it makes a pair in
`CHANCE` photos. Near it, the threshold is put into the widest gap between the
similarities that there are.
"""

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from tokret.shapes import Float, Int

FILE = "duplicates.json"  # in the index
MAX_BYTES = 10_000
CHANCE = 1000  # photos among which chance makes one pair
FEW, MANY = 5.0, 50.0  # neighbours of a photo
LEAST = 200  # photos that are enough to learn from
DEFAULT = 0.98  # the threshold of fewer
SAMPLE = 1000  # photos that are compared with all
GROWTH = 0.1  # of the index, after which the threshold is learned again
NEAR = 3.0  # factor of the expected number within which a gap is looked for
# Distances are counted in bins of 1 % each.
_EDGES = np.geomspace(1e-7, 2.5, 1712)


class Threshold(msgspec.Struct, frozen=True):
    """The similarity from which photos of an index are near-duplicates."""

    score: float  # a cosine
    photos: int  # of the index when it was learned
    weights: str  # digest of the model's
    fraction: float  # of the photos that have a near-duplicate, estimated
    dimension: float  # of the library around its photos; 0 if it was too small to learn

    def suits(self, photos: int, weights: str) -> bool:
        """Whether it still is that of an index: of its model and about its size."""
        grown = abs(photos - self.photos) > GROWTH * self.photos
        return self.weights == weights and not grown


def learn_threshold(
    tiles: Sequence[Float[np.ndarray, "t d"]], weights: str, seed: int = 0
) -> Threshold:
    """Learns the threshold of an index.

    Args:
      tiles: the descriptors of its photos, a row for each content, L2-normalised.
      weights: the digest of the model's.
      seed: of the choice of the photos that are compared with all.
    """
    total = sum(map(len, tiles))
    chosen = np.random.default_rng(seed).permutation(total)[:SAMPLE]
    counts, nearest = _count(tiles, np.sort(chosen))
    fit = _fit(counts) if total >= LEAST else None
    if fit is None:
        fraction = float((nearest >= DEFAULT).mean())
        return Threshold(DEFAULT, total, weights, fraction, 0.0)
    distance, dimension = fit
    score = 1 - _into_gap(counts, distance, dimension)
    fraction = float((nearest >= score).mean())
    return Threshold(round(score, 6), total, weights, fraction, dimension)


def _count(
    tiles: Sequence[Float[np.ndarray, "t d"]], chosen: Int[np.ndarray, " m"]
) -> tuple[Float[np.ndarray, " b"], Float[np.ndarray, " m"]]:
    """Counts the neighbours of some photos in each bin of the distance.

    Returns:
      The average number in each bin, and the highest similarity of each photo.
    """
    sample = np.concatenate([tile for tile in _selected(tiles, chosen)])
    counts = np.zeros(len(_EDGES) + 1)
    nearest = np.full(len(sample), -1.0, np.float32)
    first = 0
    for tile in tiles:
        scores = sample @ tile.T
        own = (chosen >= first) & (chosen < first + len(tile))
        scores[np.flatnonzero(own), chosen[own] - first] = -2  # the photo itself
        np.maximum(nearest, scores.max(axis=1), out=nearest)
        bins = np.searchsorted(_EDGES, 1 - scores[scores > -2])
        counts += np.bincount(bins, minlength=len(counts))
        first += len(tile)
    return counts / len(sample), nearest


def _selected(tiles, chosen):
    first = 0
    for tile in tiles:
        yield tile[chosen[(chosen >= first) & (chosen < first + len(tile))] - first]
        first += len(tile)


def _fit(counts: Float[np.ndarray, " b"]) -> tuple[float, float] | None:
    """The distance of a chance pair in `CHANCE` photos, and the exponent."""
    within = np.cumsum(counts)[: len(_EDGES)]  # neighbours up to each edge
    few, many = np.interp([FEW, MANY], within, np.log(_EDGES))
    if not many > few:
        return None  # as many near-duplicates as other photos
    exponent = math.log(MANY / FEW) / (many - few)
    distance = math.exp(few + math.log(2 / CHANCE / FEW) / exponent)
    return distance, 2 * exponent  # x is half the square of the Euclidean distance


def _into_gap(
    counts: Float[np.ndarray, " b"], distance: float, dimension: float
) -> float:
    """Moves a distance into the middle of the widest gap near it."""
    reach = NEAR ** (2 / dimension)
    low, high = np.searchsorted(_EDGES, [distance / reach, distance * reach])
    taken = np.flatnonzero(counts[low + 1 : high + 1]) + low + 1
    bounds = np.concatenate([[low], taken, [high + 1]])
    widest = int(np.argmax(np.diff(bounds)))
    below, above = bounds[widest], bounds[widest + 1]
    return float(np.sqrt(_EDGES[below] * _EDGES[above - 1]))
