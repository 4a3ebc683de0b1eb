"""One query of several photos: those to resemble, and those not to."""

import numpy as np

from tokret.errors import UserError
from tokret.shapes import Float

NEGATIVE = 0.5  # weight of the photos that results should not be like


def combine(
    positives: Float[np.ndarray, "p d"], negatives: Float[np.ndarray, "n d"]
) -> Float[np.ndarray, " d"]:
    """One query of several photos: like the first, and unlike the second.

    The mean of the positives minus half the mean of the negatives, L2-normalised
    (Rocchio's formula, of a query's relevance feedback). Without positives it is the
    opposite of the negatives.

    Raises:
      UserError: there are neither, or they cancel out.
    """
    if not len(positives) + len(negatives):
        raise UserError("photos is empty; name one or more")
    total = np.zeros((positives if len(positives) else negatives).shape[1], np.float32)
    if len(positives):
        total += positives.mean(axis=0)
    if len(negatives):
        total -= NEGATIVE * negatives.mean(axis=0)
    length = np.linalg.norm(total)
    if not length > 1e-6:
        raise UserError("photos: those to be like and unlike cancel out; name others")
    return total / length
