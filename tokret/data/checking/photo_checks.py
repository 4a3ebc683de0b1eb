"""Photos checked one by one: can they be read and decoded, are they large enough?"""

import functools
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from tokret.data.decoding import attempt, open_encoded
from tokret.data.preparing import workers
from tokret.data.preparing.photo_files import (
    BadPhotoError,
    PhotoLocation,
    PhotoReader,
)
from tokret.data.preparing.photo_processing import PhotoProcessing, process_photo

BATCH = 32  # photos that a worker takes at once
BATCH_BYTES = 64 * 2**20  # after which a batch of photos from archives ends
KINDS = {  # how a BadPhotoError starts, and the defect's kind
    "missing": "missing",
    "a link to": "missing",
    "not readable": "unreadable",  # without a package
    "cannot be read:": "unreadable",
    "is a": "unreadable",  # a pipe, a folder, a device
    "larger than": "unreadable",
    "empty": "empty",
}


class Defect(NamedTuple):
    """Something wrong with a photo or an archive: its kind in a word, and details."""

    name: str
    problem: str
    detail: str


class PhotoToCheck(NamedTuple):
    """A photo that is to be checked; duplicates are of the same group."""

    name: str
    content: PhotoLocation | bytes
    group: str = ""


class CheckedPhoto(NamedTuple):
    """A checked photo: sha256 of its group and bytes, empty if unreadable; a defect."""

    name: str
    digest: bytes
    defect: Defect | None


def check_batch(
    min_side: int,
    max_pixels: int,
    photos: Sequence[PhotoToCheck],
    progress: Callable[[int], object],
) -> list[CheckedPhoto]:
    """Checks photos, in any process."""
    checked = []
    with PhotoReader() as reader:
        for photo in photos:
            checked.append(_check(photo, reader, min_side, max_pixels))
            progress(1)
    return checked


def check_photos(
    photos: Iterable[PhotoToCheck],
    min_side: int,
    max_pixels: int,
    count: int,
    progress: Callable[[int], object],
) -> Iterator[CheckedPhoto]:
    """Checks photos in `count` processes; yields the results in any order.

    A photo is tiny if its shorter side is below `min_side` pixels, and bad if it has
    more than `max_pixels`; `progress` is called with the number of photos that are
    done.
    """
    batches = make_batches(photos)
    check = functools.partial(check_batch, min_side, max_pixels)
    yield from itertools.chain.from_iterable(
        workers.run(check, batches, count, progress)
    )


def make_batches(photos: Iterable[PhotoToCheck]) -> Iterator[list[PhotoToCheck]]:
    """Splits photos into batches of BATCH; those in memory also by their bytes."""
    batch: list[PhotoToCheck] = []
    size = 0
    for photo in photos:
        batch.append(photo)
        size += len(photo.content) if isinstance(photo.content, bytes) else 0
        if len(batch) == BATCH or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _check(
    photo: PhotoToCheck, reader: PhotoReader, min_side: int, max_pixels: int
) -> CheckedPhoto:
    name, content, group = photo
    digest = b""
    try:
        encoded = content if isinstance(content, bytes) else reader.read(content)
        digest = hashlib.sha256(group.encode() + encoded).digest()
        process_photo(encoded, PhotoProcessing(max_pixels=max_pixels))
        side = min(attempt(encoded, lambda data: open_encoded(data, max_pixels)).size)
    except BadPhotoError as bad:
        words = str(bad)
        matching = (kind for start, kind in KINDS.items() if words.startswith(start))
        return CheckedPhoto(name, digest, Defect(name, next(matching, "broken"), words))
    tiny = Defect(name, "tiny", f"its shorter side has {side} pixels")
    return CheckedPhoto(name, digest, tiny if side < min_side else None)
