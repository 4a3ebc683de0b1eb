"""Views -> padded batches, decoded by several threads, a few batches ahead."""

import dataclasses
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import msgspec
import numpy as np

from tokret.data.views import Box, View
from tokret.errors import UserError
from tokret.retrieval.canvases import Canvas
from tokret.retrieval.store.record import Images
from tokret.runtime.process_group import ALONE, ProcessGroup
from tokret.shapes import Int, UInt8

_AT_ONCE = 1024  # views that are read between two calls of `progress`

# A batch, its padded images, and by row why a photo of it is bad.
Loaded = tuple[Canvas, UInt8[np.ndarray, "b h w 3"], dict[int, str]]


def decoding_threads() -> int:
    """As many threads as this process has cores: decoding releases Python's lock."""
    return len(os.sched_getaffinity(0))


@dataclasses.dataclass(frozen=True)
class ScannedPhotos:
    """What is known of photos before they are decoded."""

    images: Images  # names, sizes, boxes and digests
    bad: Mapping[int, str]  # by row, why a photo cannot be read

    @property
    def sizes(self) -> Int[np.ndarray, "n 2"]:
        """Heights and widths; 0, 0 for the bad ones."""
        return np.array(self.images.sizes, np.int32).reshape(-1, 2)


class _Scanned(NamedTuple):
    name: str
    size: tuple[int, int]
    box: Box | None
    digest: str
    error: str | None


def scan_photos(
    views: Sequence[View],
    progress: Callable[[int], Any] = lambda done: None,
    group: ProcessGroup = ALONE,
) -> ScannedPhotos:
    """Reads all photos once, and decodes none of them; processes divide the photos.

    `progress` is called with the number of views done here since the last call. The
    result is the same in every process; photos that cannot be read are in its `bad`.
    """

    def scan(row: int) -> _Scanned:
        name, box, digest = f"record {row}", None, ""
        try:
            view = views[row]
            name, digest = view.name, view.digest
            if view.box is not None:
                x0, y0, x1, y1 = (float(side) for side in view.box)
                box = x0, y0, x1, y1
            return _Scanned(name, view.size(), box, digest, None)
        except UserError as error:
            return _Scanned(name, (0, 0), box, digest, str(error))

    found: list[_Scanned] = []
    with ThreadPoolExecutor(decoding_threads()) as pool:
        mine = group.part_of(len(views))
        for start in range(0, len(mine), _AT_ONCE):
            rows = mine[start : start + _AT_ONCE]
            found += pool.map(scan, rows)
            progress(len(rows))
    found = _from_all_processes(found, group)
    columns = [tuple(column) for column in zip(*found, strict=True)] or [()] * 5
    names, sizes, boxes, digests, errors = columns
    bad = {row: why for row, why in enumerate(errors) if why is not None}
    return ScannedPhotos(Images(names, sizes, boxes, digests), bad)


def _from_all_processes(mine: list[_Scanned], group: ProcessGroup) -> list[_Scanned]:
    """Concatenates the lists of all processes, in every process."""
    if group.count == 1:
        return mine

    def encode(rows: list[_Scanned]) -> dict[str, np.ndarray]:
        return {"rows": np.frombuffer(msgspec.json.encode(rows), np.uint8)}

    def decode(arrays: Mapping[str, np.ndarray]) -> list[_Scanned]:
        return msgspec.json.decode(arrays["rows"].tobytes(), type=list[_Scanned])

    parts = group.gather(encode(mine))
    return decode(
        group.broadcast(encode([row for part in parts for row in decode(part)]))
    )


def load_batches(
    views: Sequence[View],
    batches: Iterable[Canvas],
    sizes: Int[np.ndarray, "n 2"],
    batch_size: int,
) -> Iterator[Loaded]:
    """Decodes batches; while one is used, the next are being decoded.

    Yields:
      A batch, its images [batch_size, H, W, 3] uint8, padded with black, and by row why
      a photo of it is bad.
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
        errors = zip(batch.rows, (f.result() for f in filled), strict=True)
        return batch, images, {row: why for row, why in errors if why is not None}

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
