"""Variants of a search: whitened, among distractors, compressed."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tokret.errors import UserError
from tokret.evaluation.descriptor_inputs import DescriptorInput, read_descriptor_input
from tokret.io.remote.fetching import require
from tokret.io.remote.uploading import publish
from tokret.retrieval import whitening as whitenings
from tokret.retrieval.compression.costs import measure_compression
from tokret.retrieval.compression.database import Compressed, check_codec
from tokret.retrieval.exact_search.blocks import ConcatenatedDatabase, Database
from tokret.retrieval.store.record import Record
from tokret.retrieval.whitening import Whitening

# (queries, database, head, whose codes the database is) -> numbers.
Measure = Callable[[np.ndarray, Database, None, Compressed | None], Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Variants:
    """What is measured in addition to the plain search."""

    # Images added to the database, which are positives of no query.
    distractors: DescriptorInput | None = None
    forms: tuple[str, ...] = ()  # of compression
    # Of all descriptors, before anything else; None for none.
    whitening: Whitening | None = None
    # What the whitening is learned from; None where it was read.
    learn_from: DescriptorInput | None = None
    dims: int | None = None  # that a learned whitening keeps; None for all

    def __bool__(self) -> bool:
        """Whether there is anything to measure or to whiten."""
        return any((self.distractors, self.forms, self.whitening, self.learn_from))

    def checked(self, record: Record | None, dims: int | None = None) -> "Variants":
        """Checks whose descriptors they are, and learns the whitening.

        `record` is of the database's store (None for a file), `dims` of its
        descriptors.

        Raises:
          UserError: descriptors are of another model, or no whitening can be learned.
        """
        if self.distractors is not None:
            self.distractors.check_model("distractors", "database", record, dims)
        if self.learn_from is None:
            return self
        self.learn_from.check_model("whiten", "database", record, dims)
        width = self.learn_from.descriptors.shape[1]
        if self.dims is not None and not 1 <= self.dims <= width:
            raise UserError(f"whiten_dims={self.dims} must be 1 to {width}")
        learned = whitenings.learn(self.learn_from.descriptors, self.dims)
        return dataclasses.replace(self, whitening=learned)

    def save(self, path: Path) -> None:
        """Saves the whitening, if it was learned here; uploads it, if it has a URL."""
        if self.learn_from is not None and self.whitening is not None:
            whitenings.save(self.whitening, path)
            publish(path)

    def environment(self) -> dict[str, Any]:
        """What every number depends on; empty without a whitening."""
        if self.whitening is None:
            return {}
        dims = {"dims": self.whitening.projection.shape[1]}
        learned = None if self.learn_from is None else self.learn_from.path
        return {"whitening": dims | {"learned_from": learned}}

    def whiten(self, descriptors: np.ndarray) -> np.ndarray:
        """Whitens descriptors; without a whitening, returns them as they are.

        Raises:
          UserError: the whitening is for other dimensions.
        """
        if self.whitening is None:
            return descriptors
        width = len(self.whitening.mean)
        if descriptors.shape[1] != width:
            raise UserError(
                f"whiten: is for {width} dimensions, these descriptors have "
                f"{descriptors.shape[1]}"
            )
        return self.whitening(descriptors)

    def measure(
        self, queries: np.ndarray, database: Database, measure: Measure
    ) -> dict[str, Any]:
        """Measures the variants of a search in whitened [Q, D] and [N, D].

        Returns:
          "distractors": count, path and the numbers among them; "compressed": by
          form, `measure_compression` and the numbers, among any distractors.
        """
        found: dict[str, Any] = {}
        if self.distractors is not None:
            rows: Database = self.distractors.descriptors
            if self.whitening is not None:
                rows = self.whitening.whiten(rows)
            database = ConcatenatedDatabase([database, rows])
            found["distractors"] = {
                "count": len(rows),
                "path": self.distractors.path,
                "numbers": dict(measure(queries, database, None, None)),
            }
        for form in self.forms:
            compressed, costs = measure_compression(form, queries, database)
            numbers = dict(measure(queries, compressed.codes, None, compressed))
            found.setdefault("compressed", {})[form] = costs | {"numbers": numbers}
        return found


def make_variants(
    distractors: Path | None,
    compress: Sequence[str] | None,
    whiten: Path | None,
    whiten_dims: int | None,
) -> Variants:
    """Reads what the variants need; the arguments are options of eval.py.

    Raises:
      UserError: a file cannot be read, or a form is not known.
    """
    forms = tuple(check_codec(form) for form in dict.fromkeys(compress or ()))
    ready = whiten is not None and whiten.name.endswith(".safetensors")
    if whiten_dims is not None and (whiten is None or ready):
        raise UserError("whiten_dims: needs descriptors to learn from as whiten")
    return Variants(
        distractors=None if distractors is None else read_descriptor_input(distractors),
        forms=forms,
        whitening=whitenings.read(require(whiten)) if whiten and ready else None,
        learn_from=read_descriptor_input(whiten)
        if whiten is not None and not ready
        else None,
        dims=whiten_dims,
    )
