"""Queries to an index: the photos most similar to a photo, or to a part of it."""

import contextlib
import dataclasses
import os
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np

from tokret.arguments import within
from tokret.data.decoding import MAX_PIXELS
from tokret.data.views import Box
from tokret.errors import UserError
from tokret.retrieval.exact_search.blocks import ConcatenatedDatabase
from tokret.retrieval.exact_search.top_k import top_k
from tokret.retrieval.extraction import extract
from tokret.retrieval.store.reading import Store
from tokret.search.catalogue import (
    FROM_CHECKPOINT,
    WEIGHTS,
    Catalogue,
    ModelInfo,
)
from tokret.search.extractor import Extractor, damaged_copy
from tokret.search.part_stores import open_parts
from tokret.search.photos import read_view
from tokret.search.remote_index import fetch_catalogue, fetch_parts
from tokret.shapes import Float


class Hit(NamedTuple):
    """A retrieved photo: its path from the root, and the cosine of the descriptors."""

    name: str
    score: float


@dataclasses.dataclass(frozen=True)
class SearchResults:
    """The result of a query: as a sequence, its hits."""

    root: Path  # the folder that names are relative to
    hits: list[Hit]  # the best first
    gone: list[str]  # hits whose files are not below the root any more
    num_photos: int  # how many were searched
    extract_seconds: float  # for the query's descriptor, compilation included
    search_seconds: float  # for the search

    def __len__(self) -> int:
        """Returns the number of hits."""
        return len(self.hits)

    def __iter__(self) -> Iterator[Hit]:
        """Gives the hits, the best first."""
        return iter(self.hits)

    @overload
    def __getitem__(self, place: int) -> Hit: ...

    @overload
    def __getitem__(self, place: slice) -> list[Hit]: ...

    def __getitem__(self, place: int | slice) -> Hit | list[Hit]:
        """Returns a hit by its place, from 0, or some of them."""
        return self.hits[place]


def parse_box(text: str | None) -> Box | None:
    """Reads x0,y0,x1,y1 in pixels.

    Raises:
      UserError: if it is not a box.
    """
    if text is None:
        return None
    return check_box(text.split(","), text)


def check_box(sides: Any, shown: object) -> Box:
    """Checks that a value has four sides of a box; errors show another form of it.

    Raises:
      UserError: if it is not a box.
    """
    try:
        x0, y0, x1, y1 = (float(side) for side in sides)
    except (TypeError, ValueError) as error:
        raise UserError(f"box={shown} must be x0,y0,x1,y1 in pixels") from error
    if not (0 <= x0 < x1 < np.inf and 0 <= y0 < y1 < np.inf):
        raise UserError(f"box={shown} must have 0 <= x0 < x1 and 0 <= y0 < y1")
    return x0, y0, x1, y1


def query_index(
    index: Path,
    photo: Path,
    box: Box | None,
    top: int,
    load: Callable[[str], Extractor],
    root: Path | None = None,
    max_pixels: int = MAX_PIXELS,
) -> SearchResults:
    """Retrieves the photos of an index that are most similar to another one.

    Args:
      index: the index's folder.
      photo: the query; it may be one of the index's own.
      box: the part of it to search for, in pixels of the upright photo; None for all.
      top: how many to retrieve.
      load: restores the model, given the name of the index's own copy of it.
      root: the folder where the index's photos are now; None: where they were indexed.
      max_pixels: that the photo may have.

    Raises:
      UserError: if there is no index, it is damaged, or the photo cannot be read.
    """
    within("top", top, 1)
    catalogue = fetch_catalogue(index)
    while True:
        try:
            fetch_parts(index, catalogue)
            stores = _open_stores(index, catalogue)
            side = catalogue.model.longest_side
            _suggest_name(photo)
            view = read_view(photo, str(photo), box, side, max_pixels)
            extractor = _restored(index, catalogue.model, load)
            break
        except UserError:
            # An update may have removed parts or weights since the catalogue was read.
            before, catalogue = catalogue, fetch_catalogue(index)
            if catalogue == before:
                raise
    folder = Path(catalogue.root) if root is None else root
    start = time.perf_counter()
    system = extractor.system
    settings = dataclasses.replace(system.settings, batch_size=1)
    query = extract(system.embed, system.variables, [view], settings)
    extracted = time.perf_counter()
    dims = {store.descriptors.shape[1] for store in stores.values()}
    if dims != {query.shape[1]}:
        raise UserError(
            f"index={index} has descriptors of {sorted(dims)} dimensions, not "
            f"{query.shape[1]}; {FROM_CHECKPOINT}"
        )
    hits = search_parts(stores, catalogue.live_rows(), query, top)
    seconds = extracted - start, time.perf_counter() - extracted
    gone = [hit.name for hit in hits if not os.path.exists(folder / hit.name)]
    num_photos = len(catalogue.photos) - len(catalogue.errors())
    return SearchResults(folder, hits, gone, num_photos, *seconds)


def _suggest_name(photo: Path) -> None:
    """Raises a UserError for a missing photo where one is named alike beside it."""
    if os.path.lexists(photo):
        return

    def alike(name: str) -> str:  # spaces of every width are one
        return " ".join(unicodedata.normalize("NFC", name).split())

    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(photo.parent)):
            if alike(name) == alike(photo.name):
                raise UserError(
                    f"{photo}: missing; did you mean {photo.parent / name}? Its spaces "
                    "or accents are other characters: copy its name, or complete it "
                    "with the tab key"
                )


def _open_stores(index: Path, catalogue: Catalogue) -> dict[str, Store]:
    stores, damaged = open_parts(index, catalogue)
    if damaged:
        raise UserError(
            f"index={index} is damaged: {damaged[0]}; index its photos again, which "
            "repairs it"
        )
    if not stores:
        raise UserError(f"index={index} has no photo with a descriptor")
    return stores


def _restored(
    index: Path, model: ModelInfo, load: Callable[[str], Extractor]
) -> Extractor:
    folder = index / WEIGHTS / model.copy
    extractor = load(model.copy)
    difference = extractor.model.difference(model)
    if difference:
        raise damaged_copy(folder, f"{folder}: {difference}")
    return extractor


def search_parts(
    stores: Mapping[str, Store],
    live: Mapping[str, Mapping[int, Sequence[str]]],
    query: Float[np.ndarray, "1 d"],
    top: int,
) -> list[Hit]:
    """Searches the parts of an index, exactly, for the best `top` photos.

    Args:
      stores: the parts by name.
      live: of each part, the photos of the rows in use.
      query: its descriptor.
      top: how many to retrieve.
    """
    pieces = {part: stores[part].descriptors for part in live}
    names = [
        live[part].get(row, ())
        for part, piece in pieces.items()
        for row in range(len(piece))
    ]
    unused = sum(not each for each in names)  # they may rank before others
    # Together: each size of a database is a program of its own.
    database = ConcatenatedDatabase(list(pieces.values()))
    scores, items = top_k(query, database, min(len(names), top + unused))
    hits = [
        Hit(name, score)
        for score, item in zip(scores[0].tolist(), items[0].tolist(), strict=True)
        for name in names[item]
    ]
    return sorted(hits, key=lambda hit: (-hit.score, hit.name))[:top]
