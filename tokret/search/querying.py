"""Queries to an index: the photos most similar to a photo, or to a part of it."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tokret.data.views import Box
from tokret.errors import UserError
from tokret.retrieval.extraction import extract
from tokret.retrieval.search import top_k
from tokret.retrieval.store.reading import read_store
from tokret.search.catalogue import NO_PART, Catalogue, Maker, read_catalogue
from tokret.search.extractor import Describer
from tokret.search.indexing import PARTS
from tokret.search.photos import read_view
from tokret.shapes import Float


class Hit(NamedTuple):
    """A retrieved photo.

    Attributes:
      name: its path from the root.
      score: cosine of the two descriptors.
    """

    name: str
    score: float


@dataclasses.dataclass(frozen=True)
class SearchResults:
    """The result of a query.

    Attributes:
      root: the folder that names begin from.
      hits: the best first.
      num_photos: how many were searched.
      extract_seconds: for the query's descriptor, compilation included.
      search_seconds: for the search.
    """

    root: Path
    hits: list[Hit]
    num_photos: int
    extract_seconds: float
    search_seconds: float


def parse_box(text: str | None) -> Box | None:
    """Reads x0,y0,x1,y1 in pixels.

    Raises:
      UserError: if it is no box.
    """
    if text is None:
        return None
    try:
        x0, y0, x1, y1 = (float(side) for side in text.split(","))
    except ValueError as error:
        raise UserError(f"--box={text} must be x0,y0,x1,y1 in pixels") from error
    if not (0 <= x0 < x1 < np.inf and 0 <= y0 < y1 < np.inf):
        raise UserError(f"--box={text} must have 0 <= x0 < x1 and 0 <= y0 < y1")
    return x0, y0, x1, y1


def ask(
    index: Path,
    photo: Path,
    box: Box | None,
    top: int,
    describer: Callable[[Maker], Describer],
) -> SearchResults:
    """Finds the photos of an index that look most like another one.

    Args:
      index: the index's folder.
      photo: asks; it may be one of the index's own.
      box: the part of it that asks, in pixels of the upright photo; None for all.
      top: how many are wanted.
      describer: restores the model that made the index, given what is known of it.

    Raises:
      UserError: if there is no index, its weights are gone or changed, or the photo
        cannot be read.
    """
    catalogue = read_catalogue(index)
    searched = sum(not entry.why for entry in catalogue.photos.values())
    if top < 1:
        raise UserError(f"--top={top} must be at least 1")
    if not searched:
        raise UserError(f"--index={index} holds no photo that could be described")
    view = read_view(photo, str(photo), box, catalogue.maker.longest_side)
    if box is not None:
        _check_inside(box, photo, view.whole_size())
    made = describer(catalogue.maker)
    found = made.maker.difference(catalogue.maker)
    if found:
        raise UserError(
            f"--index={index} was made otherwise ({found}); name the checkpoint that "
            "made it, or index again"
        )
    begun = time.perf_counter()
    settings = dataclasses.replace(made.system.settings, batch_size=1)
    query = extract(made.system.extract, made.system.variables, [view], settings)
    described = time.perf_counter()
    hits = search_parts(index, catalogue, query, top)
    searching = time.perf_counter() - described
    root = Path(catalogue.root)
    return SearchResults(root, hits, searched, described - begun, searching)


def search_parts(
    index: Path, catalogue: Catalogue, query: Float[np.ndarray, "1 d"], top: int
) -> list[Hit]:
    """Searches all parts of an index, exactly.

    Args:
      index: the index's folder.
      catalogue: what is in it.
      query: the descriptor.
      top: how many are wanted, if there are so many.
    """
    live: dict[str, dict[int, str]] = {part: {} for part in catalogue.parts()}
    for name, entry in catalogue.photos.items():
        if entry.part != NO_PART and not entry.why:
            live[entry.part][entry.row] = name
    hits: list[Hit] = []
    for part, names in live.items():
        store = read_store(index / PARTS / part)
        rows = len(store.names)
        if names and max(names) >= rows:
            raise UserError(
                f"{index / PARTS / part} has {rows} rows, fewer than its catalogue "
                "says; remove the index and make it again"
            )
        if store.descriptors.shape[1] != query.shape[1]:
            raise UserError(
                f"{index / PARTS / part} holds descriptors of "
                f"{store.descriptors.shape[1]} dimensions, not {query.shape[1]}; "
                "remove the index and make it again"
            )
        # Rows of photos that are gone may stand before those that are wanted.
        deep = min(rows, top + rows - len(names))
        scores, items = top_k(query, store.descriptors, deep)
        hits += [
            Hit(names[item], score)
            for score, item in zip(scores[0].tolist(), items[0].tolist(), strict=True)
            if item in names
        ]
    return sorted(hits, key=lambda hit: (-hit.score, hit.name))[:top]


def _check_inside(box: Box, photo: Path, size: tuple[int, int]) -> None:
    width, height = size
    if box[2] > width or box[3] > height:
        raise UserError(
            f"--box={','.join(f'{side:g}' for side in box)} reaches out of {photo}, "
            f"which is {width} x {height} pixels, upright"
        )
