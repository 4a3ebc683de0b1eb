"""Views -> padded batches, decoded by several threads, a few batches ahead."""

import dataclasses
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from tokret.data.views import View
from tokret.errors import UserError
from tokret.retrieval.canvases import Canvas
from tokret.retrieval.store.record import Box, Images, photo_digest
from tokret.runtime.process_group import ALONE, ProcessGroup
from tokret.shapes import Int, UInt8

_AT_ONCE = 1024  # views that are asked for together

# A batch, its padded images, and by row why a photo of it is bad.
Loaded = tuple[Canvas, UInt8[np.ndarray, "b h w 3"], dict[int, str]]


def decoding_threads() -> int:
    """As many threads as this process has cores: decoding leaves Python's lock."""
    return len(os.sched_getaffinity(0))


@dataclasses.dataclass(frozen=True)
class Survey:
    """What the headers of photos say.

    Attributes:
      images: names, sizes, boxes and digests.
      bad: by row, why a photo cannot be read.
    """

    images: Images
    bad: Mapping[int, str]

    @property
    def sizes(self) -> Int[np.ndarray, "n 2"]:
        """Heights and widths; 0, 0 for the bad ones."""
        return np.array(self.images.sizes, np.int32).reshape(-1, 2)


def survey(
    views: Sequence[View],
    progress: Callable[[int], Any] = lambda done: None,
    group: ProcessGroup = ALONE,
) -> Survey:
    """Reads all photos once, and decodes none of them.

    Args:
      views: the photos; one that cannot be read is noted as bad.
      progress: called with the number of views done since the last call, here.
      group: processes that read a share each.

    Returns:
      The same in every process.
    """

    def look(row: int) -> tuple[str, tuple[int, int], Box | None, str, str | None]:
        name, box, digest = f"record {row}", None, ""
        try:
            view = views[row]
            name, digest = view.name, photo_digest(view.encoded)
            box = None if view.box is None else _plain(view.box)
            return name, view.size(), box, digest, None
        except UserError as error:
            return name, (0, 0), box, digest, str(error)

    found: list[tuple[Any, ...]] = []
    with ThreadPoolExecutor(decoding_threads()) as pool:
        mine = group.part_of(len(views))
        for start in range(0, len(mine), _AT_ONCE):
            rows = mine[start : start + _AT_ONCE]
            found += pool.map(look, rows)
            progress(len(rows))
    found = _of_all(found, group)
    columns = [tuple(column) for column in zip(*found, strict=True)] or [()] * 5
    names, sizes, boxes, digests, reasons = columns
    bad = {row: why for row, why in enumerate(reasons) if why is not None}
    return Survey(Images(names, sizes, boxes, digests), bad)


def _of_all(found: list[tuple[Any, ...]], group: ProcessGroup) -> list[tuple[Any, ...]]:
    """What all processes found, in every process."""
    if group.count == 1:
        return found
    parts = group.gather({"found": _to_bytes(found)})
    whole = _to_bytes([row for part in parts for row in _to_rows(part["found"])])
    rows = _to_rows(group.broadcast({"found": whole})["found"])
    return [
        (name, tuple(size), None if box is None else tuple(box), digest, why)
        for name, size, box, digest, why in rows
    ]


def _to_bytes(rows: Sequence[Sequence[Any]]) -> UInt8[np.ndarray, " n"]:
    return np.frombuffer(json.dumps(rows).encode(), np.uint8)


def _to_rows(content: UInt8[np.ndarray, " n"]) -> list[list[Any]]:
    rows: list[list[Any]] = json.loads(content.tobytes())
    return rows


def _plain(box: Box) -> Box:
    """The box in Python's own numbers, which JSON gives back as they were."""
    x0, y0, x1, y1 = (float(side) for side in box)
    return x0, y0, x1, y1


def load_batches(
    views: Sequence[View],
    batches: Iterable[Canvas],
    sizes: Int[np.ndarray, "n 2"],
    batch_size: int,
) -> Iterator[Loaded]:
    """Decodes batches; while one is used, the next are being decoded.

    Args:
      views: all views.
      batches: which of them belong together, on which canvas.
      sizes: of all views.
      batch_size: images a batch; what it lacks is black.

    Yields:
      A batch, its padded images, and by row why a photo of it is bad.
    """
    threads = decoding_threads()
    ahead = 1 + -(-threads // batch_size)  # batches: enough work for every thread

    def fill(place: np.ndarray, row: int) -> str | None:
        try:
            pixels = views[row].pixels()
        except UserError as error:
            return str(error)
        height, width = pixels.shape[:2]
        if (height, width) != tuple(sizes[row]):
            return f"{views[row].name} changed while it was read"
        place[:height, :width] = pixels
        return None

    def collect(item: tuple[Canvas, np.ndarray, list[Future[str | None]]]) -> Loaded:
        batch, images, filled = item
        reasons = zip(batch.rows, (f.result() for f in filled), strict=True)
        return batch, images, {row: why for row, why in reasons if why is not None}

    pool = ThreadPoolExecutor(threads)
    waiting: deque[tuple[Canvas, np.ndarray, list[Future[str | None]]]] = deque()
    try:
        for batch in batches:
            images = np.zeros((batch_size, batch.height, batch.width, 3), np.uint8)
            filled = [
                pool.submit(fill, place, row)
                for place, row in zip(images, batch.rows, strict=False)
            ]
            waiting.append((batch, images, filled))
            if len(waiting) > ahead:
                yield collect(waiting.popleft())
        while waiting:
            yield collect(waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)
