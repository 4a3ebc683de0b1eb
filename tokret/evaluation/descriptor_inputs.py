"""Descriptors of queries or of a database, from a file or from a store."""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from tokret.errors import UserError
from tokret.evaluation.image_sets import DescriptorSet
from tokret.io.descriptor_files import read_descriptors
from tokret.retrieval.store.reading import is_store, read_store
from tokret.retrieval.store.record import Record, extraction_difference


class DescriptorInput(NamedTuple):
    """Descriptors of the queries or of the database.

    Attributes:
      found: names, descriptors, and which are bad.
      record: of the store; None if they are from a file.
    """

    found: DescriptorSet
    record: Record | None


def read_descriptor_input(
    path: str,
    names: Sequence[str],
    field: str,
    queries: DescriptorInput | None = None,
) -> DescriptorInput:
    """Reads descriptors of these images.

    Args:
      path: an .npy file, or the folder of a store.
      names: the images, in the order of the rows.
      field: their name in the ground truth: imlist or qimlist.
      queries: with which a database is to be compared.

    Raises:
      UserError: they cannot be read, belong to other images, or cannot be compared with
        the queries.
    """
    dims = None if queries is None else queries.found.descriptors.shape[1]
    if not is_store(path):
        array = read_descriptors(path, rows=len(names), name=field, dims=dims)
        return DescriptorInput(DescriptorSet(tuple(names), array, {}), None)
    store = read_store(path)
    _check_names(path, store.names, names, field)
    if queries is not None and queries.record is not None:
        found = extraction_difference(store.record, queries.record)
        if found:
            raise UserError(
                f"{path} has descriptors of another model than the queries ({found})"
            )
    if dims not in (None, store.descriptors.shape[1]):
        raise UserError(
            f"{path}: has {store.descriptors.shape[1]} dimensions and the queries "
            f"{dims}, queries and database must come from the same model"
        )
    found_set = DescriptorSet(store.names, store.descriptors, store.bad)
    return DescriptorInput(found_set, store.record)


def _check_names(
    path: str, ours: Sequence[str], theirs: Sequence[str], field: str
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
