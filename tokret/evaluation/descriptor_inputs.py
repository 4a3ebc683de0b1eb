"""One side of a search, from a file of descriptors or from a store."""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from tokret.errors import UserError
from tokret.evaluation.systems import Described
from tokret.io.descriptor_files import read_descriptors
from tokret.retrieval.store.reading import is_store, read_store
from tokret.retrieval.store.record import Record, maker_difference


class Side(NamedTuple):
    """Descriptors of the queries or of the database.

    Attributes:
      described: names, descriptors, and which are bad.
      record: what a store says of them; None if they came from a file.
    """

    described: Described
    record: Record | None


def read_side(
    path: str, names: Sequence[str], field: str, like: Side | None = None
) -> Side:
    """Reads descriptors of these images.

    Args:
      path: an .npy file, or the folder of a store.
      names: the images, in the order of the rows.
      field: what the ground truth calls them: imlist or qimlist.
      like: the other side, with which these are to be compared.

    Raises:
      UserError: they are not there, belong to other images, or cannot be compared with
        the other side.
    """
    dims = None if like is None else like.described.descriptors.shape[1]
    if not is_store(path):
        array = read_descriptors(path, rows=len(names), name=field, dims=dims)
        return Side(Described(tuple(names), array, {}), None)
    store = read_store(path)
    _check_names(path, store.names, names, field)
    if like is not None and like.record is not None:
        found = maker_difference(store.record, like.record)
        if found:
            raise UserError(f"{path} was made otherwise than the other side ({found})")
    if dims not in (None, store.descriptors.shape[1]):
        raise UserError(
            f"{path}: has {store.descriptors.shape[1]} dimensions and the other side "
            f"{dims}, queries and database must come from the same model"
        )
    return Side(Described(store.names, store.descriptors, store.bad), store.record)


def _check_names(
    path: str, ours: Sequence[str], theirs: Sequence[str], field: str
) -> None:
    """Compares names of photos, whose endings lists of images leave out."""
    if len(ours) != len(theirs):
        raise UserError(
            f"{path}: has {len(ours)} rows and {field} has {len(theirs)}, there must "
            "be one row for each, in the same order"
        )
    for row, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if b not in (a, PurePosixPath(a).stem, str(PurePosixPath(a).with_suffix(""))):
            raise UserError(
                f"{path}: row {row} is of {a!r}, but {field} has {b!r} there"
            )
