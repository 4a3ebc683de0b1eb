"""PCA whitening: the directions of the largest variance, scaled to the same variance.

Jégou and Chum, "Negative Evidences and Co-occurrences in Image Retrieval: the Benefit
of PCA and Whitening", ECCV 2012: subtract the mean, project on the eigenvectors of the
covariance with the largest eigenvalues, divide by their square roots, normalise again.
It is learned on other images than those that are searched.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tokret.errors import UserError
from tokret.io.weight_files import (
    read_weights,
    require_digests,
    write_safetensors,
)
from tokret.retrieval.exact_search.blocks import (
    Database,
    MappedDatabase,
    read_in_blocks,
)
from tokret.shapes import Float, Shaped

FORMAT = "tokret whitening 1"
# An eigenvalue below this fraction of the largest is rounding, and would amplify noise.
_SMALLEST = 1e-9


@dataclass(frozen=True)
class Whitening:
    """A projection."""

    mean: Float[np.ndarray, " d"]  # [D] float32
    projection: Float[np.ndarray, "d e"]  # [D, E] float32, E at most D

    def __call__(self, descriptors: Shaped[np.ndarray, "n d"]) -> np.ndarray:
        """Whitens [N, D] descriptors: [N, E] float32 of length 1; NaN stays NaN."""
        moved = np.asarray(descriptors, np.float32) - self.mean
        white = moved @ self.projection
        length = np.linalg.norm(white, axis=1, keepdims=True)
        return white / np.where(length == 0, 1, length)

    def whiten(self, database: Database) -> MappedDatabase:
        """Whitens a database [N, D] block by block, as it is read."""
        return MappedDatabase(database, self, self.projection.shape[1])


def learn(descriptors: Database, dims: int | None = None) -> Whitening:
    """Learns a whitening; sums are float64, and one block is in memory at a time.

    Of the descriptors [N, D] rows of NaN are skipped; `dims` is E, None for D.

    Raises:
      ValueError: E is not in 1 to D.
      UserError: the descriptors do not differ in so many directions.
    """
    width = descriptors.shape[1]
    kept = width if dims is None else dims
    if not 1 <= kept <= width:
        raise ValueError(f"dims is {kept}, and must be in 1 to {width}")
    mean, covariance, count = _moments(descriptors)
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1][:kept], vectors[:, ::-1][:, :kept]
    spread = np.count_nonzero(values > _SMALLEST * max(values[0], 1e-300))
    if spread < kept:
        raise UserError(
            f"dims: {kept} cannot be kept, since the {count} descriptors differ in "
            f"{spread} directions; learn from more images, or keep fewer dimensions"
        )
    # An eigenvector's sign is arbitrary: its largest component is made positive.
    signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(kept)])
    projection = vectors * signs / np.sqrt(values)
    return Whitening(mean.astype(np.float32), projection.astype(np.float32))


def _moments(descriptors: Database) -> tuple[np.ndarray, np.ndarray, int]:
    """Mean and covariance, in two passes, and the number of rows."""
    width, count = descriptors.shape[1], 0
    total = np.zeros(width)
    for rows in _finite_rows(descriptors):
        total += rows.sum(axis=0)
        count += len(rows)
    mean = total / max(1, count)
    covariance = np.zeros((width, width))
    for rows in _finite_rows(descriptors):
        moved = rows - mean
        covariance += moved.T @ moved
    return mean, covariance / max(1, count), count


def _finite_rows(descriptors: Database) -> Iterator[np.ndarray]:
    for _, rows in read_in_blocks(descriptors, np.float64):
        yield rows[~np.isnan(rows).any(axis=1)]


def save(whitening: Whitening, path: Path) -> None:
    """Writes a whitening as safetensors, whole or not at all.

    Raises:
      UserError: the disk refuses.
    """
    tensors = {"mean": whitening.mean, "projection": whitening.projection}
    write_safetensors(path, tensors, {"format": FORMAT})


def read(path: Path) -> Whitening:
    """Reads a file of `save`.

    Raises:
      UserError: the file is missing, cut, malformed, another, or contradicts itself.
    """
    file = read_weights(path)
    if file.metadata.get("format") != FORMAT:
        raise UserError(f"{path}: not a file of tokret's whitening")
    require_digests(path, file, "learn it again")
    parts = [file.tensors.get(name) for name in ("mean", "projection")]
    if any(part is None or part.dtype != np.float32 for part in parts):
        raise UserError(f"{path}: damaged, learn it again (mean, projection: float32)")
    mean, projection = (np.array(part) for part in parts)
    fits = mean.ndim == 1 and projection.ndim == 2
    if not fits or len(mean) != len(projection) or 0 in projection.shape:
        raise UserError(
            f"{path}: damaged, learn it again (mean of shape {mean.shape}, projection "
            f"of {projection.shape})"
        )
    if not (np.isfinite(mean).all() and np.isfinite(projection).all()):
        raise UserError(f"{path}: damaged, learn it again (not finite)")
    return Whitening(mean, projection)
