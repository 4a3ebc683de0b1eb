"""The parts of an index: stores of a bounded number of descriptors each."""

import secrets
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import numpy as np

from tokret.errors import UserError
from tokret.evaluation.systems import preprocessing
from tokret.io.json_files import read_json
from tokret.io.remote.uploading import publish
from tokret.io.remote.urls import url_of
from tokret.retrieval.store.reading import (
    DESCRIPTORS,
    MAX_RECORD,
    RECORD,
    REMEDY,
    Store,
    descriptors_checksum,
    map_descriptors,
    read_store,
)
from tokret.retrieval.store.record import Images, Record, extraction_difference
from tokret.retrieval.store.writing import write_store
from tokret.search.catalogue import PARTS, Catalogue
from tokret.search.catalogue_rows import ModelInfo, Part
from tokret.shapes import Float, Shaped


class PartStore(NamedTuple):
    """An open part."""

    path: Path
    # [N, D] float32, mapped from the disk and read-only
    descriptors: Float[np.ndarray, "n d"]
    checksum: int  # CRC-32 of the descriptors

    def verify(self) -> None:
        """Reads all descriptors.

        Raises:
          UserError: they have another checksum.
        """
        if descriptors_checksum(self.descriptors) != self.checksum:
            raise UserError(
                f"{self.path / DESCRIPTORS}: changed since {RECORD} was written"
            )


class _Images(msgspec.Struct, frozen=True):
    digests: tuple[Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{16}\Z")], ...]


class _Record(msgspec.Struct, frozen=True):
    model: dict[str, Any]
    weights: str
    preprocessing: dict[str, Any]
    images: _Images


_NONE = Images((), (), (), ())


class _StoreFile(msgspec.Struct, frozen=True):
    """What opening a part needs of its `store.json`: no names, sizes and boxes."""

    format: Literal[1]
    record: _Record
    dimensions: int
    checksum: int


def write_part(
    index: Path, record: Record, descriptors: Float[np.ndarray, "n d"]
) -> str:
    """Writes a part, and returns its name.

    Until a catalogue refers to it, it is not in the index.
    """
    name = secrets.token_hex(8)
    folder = index / PARTS / name
    if url_of(index) is None:
        _write(folder, record, descriptors)
        return name
    with tempfile.TemporaryDirectory() as scratch:  # small, and uploaded as a whole
        _write(Path(scratch, name), record, descriptors)
        shutil.copytree(Path(scratch, name), folder)
    publish(folder)
    return name


def _write(
    folder: Path, record: Record, descriptors: Float[np.ndarray, "n d"]
) -> Store:
    with write_store(folder, record) as writer:
        writer.write(np.arange(len(record.images)), descriptors, {})
        return writer.finish()


def to_array(digests: Iterable[str]) -> Shaped[np.ndarray, " n"]:
    """Digests as uint64."""
    return np.frombuffer(bytes.fromhex("".join(digests)), ">u8").astype(np.uint64)


def open_parts(
    index: Path, catalogue: Catalogue, *, verify: bool = True
) -> tuple[dict[str, PartStore], dict[str, str]]:
    """Opens the parts of an index, and compares the catalogue with them.

    The model, the shape and the digests of all rows are compared, in about a second
    for a million rows.

    Args:
      index: the index's folder.
      catalogue: its catalogue.
      verify: whether the checksum of all descriptors is compared too, which reads them
        all; else `PartStore.verify` does it for each.

    Returns:
      The stores by name, in the catalogue's order; of the parts that are damaged or
      are not those of the catalogue, why, by name.
    """
    stores: dict[str, PartStore] = {}
    damaged: dict[str, str] = {}
    for part in catalogue.parts():
        try:
            store = open_part(index, catalogue.model, part)
            if verify:
                store.verify()
            stores[part.name] = store
        except UserError as error:
            damaged[part.name] = str(error).removesuffix(f": {REMEDY}")
    return stores, damaged


def open_part(index: Path, model: ModelInfo, part: Part) -> PartStore:
    """Opens a part, as `open_parts` without `verify`.

    Raises:
      UserError: it is missing, damaged, or not that of the catalogue.
    """
    folder = index / PARTS / part.name
    file: _StoreFile = read_json(folder / RECORD, _StoreFile, REMEDY, MAX_RECORD)
    record = file.record
    theirs = Record(record.model, record.weights, record.preprocessing, _NONE)
    difference = extraction_difference(_wanted(model), theirs)
    if difference:
        raise UserError(f"{folder}: has descriptors of another model ({difference})")
    digests = to_array(record.images.digests)
    if len(digests) != len(part.digests):
        raise UserError(f"{folder}: has {len(digests)} rows, not {len(part.digests)}")
    if (digests != part.digests).any():
        row = int(np.argmax(digests != part.digests))
        raise UserError(f"{folder}: row {row} is of another photo")
    descriptors = map_descriptors(folder, (len(digests), file.dimensions))
    if descriptors is None:
        raise UserError(f"{folder / DESCRIPTORS}: missing, or of another shape")
    return PartStore(folder, descriptors, file.checksum)


def _wanted(model: ModelInfo) -> Record:
    """The record of a part of a model, without images."""
    how = preprocessing(model.longest_side, model.scales)
    return Record(model.fields, model.weights, how, _NONE)


def take_rows(
    index: Path, places: Sequence[tuple[str, int]]
) -> tuple[Images, Float[np.ndarray, "n d"]]:
    """Copies rows, each given by its part and its number there.

    Raises:
      UserError: a part is damaged.
    """
    stores = {part: read_store(index / PARTS / part) for part in {p for p, _ in places}}
    columns = [
        tuple(getattr(stores[part].record.images, field)[row] for part, row in places)
        for field in ("names", "sizes", "boxes", "digests")
    ]
    rows = np.stack([stores[part].descriptors[row] for part, row in places])
    return Images(*columns), rows
