"""Queries to an index: the photos most similar to a photo, or to a part of it."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tokret.data.views import Box
from tokret.errors import UserError
from tokret.retrieval.exact_search.top_k import top_k
from tokret.retrieval.extraction import extract
from tokret.retrieval.store.reading import read_store
from tokret.search.catalogue import Catalogue, ModelInfo, read_catalogue
from tokret.search.extractor import Extractor
from tokret.search.indexing import SEGMENTS
from tokret.search.photos import read_view
from tokret.shapes import Float


class Hit(NamedTuple):
    """A retrieved photo: its path from the root, and the cosine of the descriptors."""

    name: str
    score: float


@dataclasses.dataclass(frozen=True)
class SearchResults:
    """The result of a query."""

    root: Path  # the folder that names are relative to
    hits: list[Hit]  # the best first
    num_photos: int  # how many were searched
    extract_seconds: float  # for the query's descriptor, compilation included
    search_seconds: float  # for the search


def parse_box(text: str | None) -> Box | None:
    """Reads x0,y0,x1,y1 in pixels.

    Raises:
      UserError: if it is not a box.
    """
    if text is None:
        return None
    try:
        x0, y0, x1, y1 = (float(side) for side in text.split(","))
    except ValueError as error:
        raise UserError(f"box={text} must be x0,y0,x1,y1 in pixels") from error
    if not (0 <= x0 < x1 < np.inf and 0 <= y0 < y1 < np.inf):
        raise UserError(f"box={text} must have 0 <= x0 < x1 and 0 <= y0 < y1")
    return x0, y0, x1, y1


def query_index(
    index: Path,
    photo: Path,
    box: Box | None,
    top: int,
    load: Callable[[ModelInfo], Extractor],
) -> SearchResults:
    """Retrieves the photos of an index that are most similar to another one.

    Args:
      index: the index's folder.
      photo: the query; it may be one of the index's own.
      box: the part of it to search for, in pixels of the upright photo; None for all.
      top: how many to retrieve.
      load: restores the model of the index.

    Raises:
      UserError: if there is no index, its weights are gone or changed, or the photo
        cannot be read.
    """
    catalogue = read_catalogue(index)
    num_photos = len(catalogue.photos) - len(catalogue.errors())
    if top < 1:
        raise UserError(f"top={top} must be at least 1")
    if not num_photos:
        raise UserError(f"index={index} has no photo with a descriptor")
    view = read_view(photo, str(photo), box, catalogue.model.longest_side)
    if box is not None:
        width, height = view.whole_size()
        if box[2] > width or box[3] > height:
            raise UserError(
                f"box={','.join(f'{side:g}' for side in box)} is not inside {photo}, "
                f"which is {width} x {height} pixels, upright"
            )
    extractor = load(catalogue.model)
    difference = extractor.model.difference(catalogue.model)
    if difference:
        raise UserError(
            f"index={index} is of another model ({difference}); name its checkpoint, "
            "or index again"
        )
    start = time.perf_counter()
    system = extractor.system
    settings = dataclasses.replace(system.settings, batch_size=1)
    query = extract(system.embed, system.variables, [view], settings)
    extracted = time.perf_counter()
    hits = search_segments(index, catalogue, query, top)
    seconds = extracted - start, time.perf_counter() - extracted
    return SearchResults(Path(catalogue.root), hits, num_photos, *seconds)


def search_segments(
    index: Path, catalogue: Catalogue, query: Float[np.ndarray, "1 d"], top: int
) -> list[Hit]:
    """Searches all segments of an index, exactly, for the best `top` photos."""
    live: dict[str, dict[int, str]] = {name: {} for name in catalogue.segments()}
    for name, entry in catalogue.photos.items():
        if not entry.error:
            live[entry.segment][entry.row] = name
    hits: list[Hit] = []
    for segment, names in live.items():
        folder = index / SEGMENTS / segment
        store = read_store(folder)
        rows, dims = len(store.names), store.descriptors.shape[1]
        if names and max(names) >= rows:
            raise UserError(
                f"{folder} has {rows} rows, fewer than its catalogue lists; remove the "
                "index and create it again"
            )
        if dims != query.shape[1]:
            raise UserError(
                f"{folder} has descriptors of {dims} dimensions, not {query.shape[1]}; "
                "remove the index and create it again"
            )
        # Rows of photos that are gone may rank before those of live ones.
        scores, items = top_k(
            query, store.descriptors, min(rows, top + rows - len(names))
        )
        hits += [
            Hit(names[item], score)
            for score, item in zip(scores[0].tolist(), items[0].tolist(), strict=True)
            if item in names
        ]
    return sorted(hits, key=lambda hit: (-hit.score, hit.name))[:top]
