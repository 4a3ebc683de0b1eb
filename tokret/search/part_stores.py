"""The parts of an index: stores of a bounded number of descriptors each."""

import secrets
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tokret.errors import UserError
from tokret.evaluation.systems import preprocessing
from tokret.io.remote.uploading import publish
from tokret.io.remote.urls import url_of
from tokret.retrieval.store.reading import REMEDY, Store, read_store
from tokret.retrieval.store.record import Images, Record, extraction_difference
from tokret.retrieval.store.writing import write_store
from tokret.search.catalogue import PARTS, Catalogue, ModelInfo
from tokret.shapes import Float


def write_part(
    index: Path, record: Record, descriptors: Float[np.ndarray, "n d"]
) -> tuple[str, Store]:
    """Writes a part; until a catalogue refers to it, it is not in the index.

    Returns its name, and the store.
    """
    name = secrets.token_hex(8)
    folder = index / PARTS / name
    if url_of(index) is None:
        return name, _write(folder, record, descriptors)
    with tempfile.TemporaryDirectory() as scratch:  # small, and uploaded as a whole
        _write(Path(scratch, name), record, descriptors)
        shutil.copytree(Path(scratch, name), folder)
    publish(folder)
    return name, read_store(folder)


def _write(
    folder: Path, record: Record, descriptors: Float[np.ndarray, "n d"]
) -> Store:
    with write_store(folder, record) as writer:
        writer.write(np.arange(len(record.images)), descriptors, {})
        return writer.finish()


def open_parts(index: Path, catalogue: Catalogue) -> tuple[dict[str, Store], list[str]]:
    """Opens the parts of an index, and compares the catalogue with them.

    Returns:
      The stores by name, and of the parts that are damaged or are not those of the
      catalogue, why.
    """
    stores, damaged = {}, []
    for name, rows in sorted(catalogue.live_rows().items()):
        try:
            stores[name] = open_part(index / PARTS / name, catalogue, rows)
        except UserError as error:
            damaged.append(str(error).removesuffix(f": {REMEDY}"))
    return stores, damaged


def open_part(
    folder: Path, catalogue: Catalogue, rows: Mapping[int, Sequence[str]]
) -> Store:
    """Opens a part, and compares it with the catalogue.

    Args:
      folder: of the part.
      catalogue: of the index.
      rows: of the part's rows in use, the photos.

    Raises:
      UserError: it is damaged, of another model, or has other photos.
    """
    store = read_store(folder)
    difference = extraction_difference(_wanted(catalogue.model), store.record)
    if difference:
        raise UserError(f"{folder}: has descriptors of another model ({difference})")
    digests = store.record.images.digests
    for row, names in rows.items():
        for name in names:
            if row >= len(digests) or catalogue.photos[name].digest != digests[row]:
                raise UserError(f"{folder}: row {row} is not of {name}")
    return store


def _wanted(model: ModelInfo) -> Record:
    """The record of a part of a model, without images."""
    how = preprocessing(model.longest_side, model.scales)
    return Record(model.fields, model.weights, how, Images((), (), (), ()))


def take_rows(
    stores: Mapping[str, Store], places: Sequence[tuple[str, int]]
) -> tuple[Images, Float[np.ndarray, "n d"]]:
    """Copies rows, each given by its part and its number there."""
    columns = [
        tuple(getattr(stores[part].record.images, field)[row] for part, row in places)
        for field in ("names", "sizes", "boxes", "digests")
    ]
    rows = np.stack([stores[part].descriptors[row] for part, row in places])
    return Images(*columns), rows
