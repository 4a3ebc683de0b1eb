"""Descriptors of any origin: an .npy file, or a store, mapped from the disk."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from tokret.errors import UserError
from tokret.evaluation.image_sets import DescriptorSet
from tokret.io.descriptor_files import read_descriptors
from tokret.io.remote.urls import shown
from tokret.retrieval.store.reading import fetch_store, is_store, read_store
from tokret.retrieval.store.record import Record, extraction_difference


@dataclasses.dataclass(frozen=True, kw_only=True)
class DescriptorInput(DescriptorSet):
    """Descriptors and their origin: a file, or a store, which has a record."""

    path: str  # or its URL
    record: Record | None

    def check_model(
        self, argument: str, other: str, record: Record | None, dims: int | None
    ) -> None:
        """Refuses descriptors of another model than the `other` ones have.

        Args:
          argument: the name of these descriptors.
          other: the name of the others.
          record: of the others' store; None if they have none.
          dims: of the others; None if it is not known.

        Raises:
          UserError: names the first difference.
        """
        found = self.descriptors.shape[1]
        difference = None
        if self.record is not None and record is not None:
            difference = extraction_difference(self.record, record)
        if difference is None and dims not in (None, found):
            difference = f"{found} dimensions and {dims}"
        if difference is not None:
            raise UserError(
                f"{argument}={self.path} is of another model than the {other} "
                f"({difference})"
            )


def read_descriptor_input(
    path: Path, names: Sequence[str] | None = None, field: str = "descriptors"
) -> DescriptorInput:
    """Opens an .npy file [N, D], or the folder of a store; what has a URL is fetched.

    Errors call `names`, those of the images in the order of the rows, `field`: imlist
    or qimlist. Without names they may be of any images.

    Raises:
      UserError: they cannot be read, or belong to other images.
    """
    fetch_store(path)
    origin = shown(path)
    if not is_store(path):
        count = None if names is None else len(names)
        array = read_descriptors(path, rows=count, name=field)
        return DescriptorInput(tuple(names or ()), array, {}, path=origin, record=None)
    store = read_store(path)
    if names is not None:
        _check_names(path, store.names, names, field)
    found = (store.names, store.descriptors, store.bad)
    return DescriptorInput(*found, path=origin, record=store.record)


def _check_names(
    path: Path, ours: Sequence[str], theirs: Sequence[str], field: str
) -> None:
    """Compares names of photos; lists of images have them without their suffixes."""
    if len(ours) != len(theirs):
        raise UserError(
            f"{path}: has {len(ours)} rows and {field} has {len(theirs)}, there must "
            "be one row for each, in the same order"
        )
    for row, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if b not in (a, PurePosixPath(a).stem, str(PurePosixPath(a).with_suffix(""))):
            raise UserError(
                f"{path}: row {row} is of {a!r}, but that row of {field} is {b!r}"
            )
