"""The same benchmark otherwise: whitened, among distractors, compressed."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tokret.errors import UserError
from tokret.evaluation.systems import Described
from tokret.io.descriptor_files import read_descriptors
from tokret.retrieval import whitening as whitenings
from tokret.retrieval.blocks import Database
from tokret.retrieval.compression.costs import costed
from tokret.retrieval.compression.database import Compressed, check_form
from tokret.retrieval.concatenated import Joined
from tokret.retrieval.store.reading import is_store, read_store
from tokret.retrieval.store.record import Record, maker_difference
from tokret.retrieval.whitening import Whitened, Whitening

# Queries, a database and how that is asked -> numbers.
Measure = Callable[[np.ndarray, Database, Compressed | None], Mapping[str, Any]]


class Source(NamedTuple):
    """Descriptors from the disk, never all in memory.

    Attributes:
      path: a store or an .npy file.
      descriptors: [M, D].
      record: what a store says of them; None for a file.
    """

    path: str
    descriptors: np.ndarray
    record: Record | None

    def check_maker(self, flag: str, ours: Record | None, dims: int | None) -> None:
        """Refuses descriptors of another model, as far as anything says so.

        Raises:
          UserError: names the first difference.
        """
        if self.record is not None and ours is not None:
            found = maker_difference(self.record, ours)
            if found:
                raise UserError(
                    f"--{flag}={self.path} was made otherwise than the database "
                    f"({found})"
                )
        if dims is not None and self.descriptors.shape[1] != dims:
            raise UserError(
                f"--{flag}={self.path}: has {self.descriptors.shape[1]} dimensions and "
                f"the database {dims}, they must come from the same model"
            )


@dataclasses.dataclass(frozen=True)
class Variants:
    """What is measured beside the benchmark alone.

    Attributes:
      distractors: images behind the database, which answer no query.
      forms: of compression.
      whitening: of all descriptors, before anything else; None for none.
      taught: what the whitening is learned from; None where it was read.
      dims: that are kept when it is learned; None for all.
    """

    distractors: Source | None = None
    forms: tuple[str, ...] = ()
    whitening: Whitening | None = None
    taught: Source | None = None
    dims: int | None = None

    def __bool__(self) -> bool:
        """Whether anything at all was asked for."""
        return any((self.distractors, self.forms, self.whitening, self.taught))

    def checked(self, record: Record | None, dims: int | None = None) -> "Variants":
        """Checks who made the descriptors, and learns the whitening.

        Args:
          record: of the database's descriptors; None where nothing says who made them.
          dims: of the database, where it is known.

        Raises:
          UserError: something was made by another model, or cannot teach.
        """
        if self.distractors is not None:
            self.distractors.check_maker("distractors", record, dims)
        if self.taught is None:
            return self
        self.taught.check_maker("whiten", record, dims)
        width = self.taught.descriptors.shape[1]
        if self.dims is not None and not 1 <= self.dims <= width:
            raise UserError(f"--whiten_dims={self.dims}: 1 to {width} can be kept")
        learned = whitenings.learn(self.taught.descriptors, self.dims)
        return dataclasses.replace(self, whitening=learned)

    def save(self, path: Path) -> None:
        """Saves the whitening, if it was learned here."""
        if self.taught is not None and self.whitening is not None:
            whitenings.save(self.whitening, path)

    def environment(self) -> dict[str, Any]:
        """What every number depends on; empty where descriptors stay as they are."""
        if self.whitening is None:
            return {}
        told = {"dims": self.whitening.projection.shape[1]}
        learned = None if self.taught is None else self.taught.path
        return {"whitening": told | {"learned_from": learned}}

    def whiten(self, descriptors: np.ndarray) -> np.ndarray:
        """Whitens descriptors, or leaves them where no whitening was asked for.

        Raises:
          UserError: the whitening is for other dimensions.
        """
        if self.whitening is None:
            return descriptors
        width = len(self.whitening.mean)
        if descriptors.shape[1] != width:
            raise UserError(
                f"--whiten is for {width} dimensions, these descriptors have "
                f"{descriptors.shape[1]}"
            )
        return self.whitening(descriptors)

    def whiten_parts(self, found: Mapping[str, Described]) -> dict[str, Described]:
        """Whitens each part of what a system described."""
        return {
            name: dataclasses.replace(part, descriptors=self.whiten(part.descriptors))
            for name, part in found.items()
        }

    def measure(
        self, queries: np.ndarray, database: Database, measure: Measure
    ) -> dict[str, Any]:
        """Measures what was asked for.

        Args:
          queries: [Q, D], whitened already.
          database: [N, D], likewise.
          measure: gives a search's numbers.

        Returns:
          "distractors": their number, path and the numbers among them; "compressed":
          by form, what `costed` says and the numbers, among the distractors if there
          are any. What was not asked for is left out.
        """
        found: dict[str, Any] = {}
        if self.distractors is not None:
            rows: Database = self.distractors.descriptors
            if self.whitening is not None:
                rows = Whitened(rows, self.whitening)
            database = Joined([database, rows])
            found["distractors"] = {
                "count": len(rows),
                "path": self.distractors.path,
                "numbers": dict(measure(queries, database, None)),
            }
        for form in self.forms:
            compressed, costs = costed(form, queries, database)
            numbers = dict(measure(queries, compressed.codes, compressed))
            found.setdefault("compressed", {})[form] = costs | {"numbers": numbers}
        return found


def make_variants(
    distractors: str | None,
    compress: Sequence[str] | None,
    whiten: str | None,
    whiten_dims: int | None,
) -> Variants:
    """Reads the flags.

    Args:
      distractors: --distractors, a store or an .npy file.
      compress: --compress, forms.
      whiten: --whiten, a whitening (.safetensors), or a store or an .npy file of
        descriptors to learn one from.
      whiten_dims: --whiten_dims, that are kept of a whitening that is learned.

    Raises:
      UserError: a file cannot be read, or a form is not known.
    """
    forms = tuple(check_form(form) for form in dict.fromkeys(compress or ()))
    ready = whiten is not None and whiten.endswith(".safetensors")
    if whiten_dims is not None and (whiten is None or ready):
        raise UserError("--whiten_dims goes with --whiten=DESCRIPTORS to learn from")
    return Variants(
        distractors=None if distractors is None else _source(distractors),
        forms=forms,
        whitening=whitenings.read(Path(whiten)) if whiten and ready else None,
        taught=_source(whiten) if whiten is not None and not ready else None,
        dims=whiten_dims,
    )


def _source(path: str) -> Source:
    if not is_store(path):
        return Source(path, read_descriptors(path), None)
    store = read_store(path)
    return Source(path, store.descriptors, store.record)
