"""Photos examined one by one: can they be read, decoded, and are they of any size?"""

import hashlib
import io
import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from PIL import Image

from tokret.data.preparing import workers
from tokret.data.preparing.photos import BadPhoto, Place, Reader, Treatment, treat

TOGETHER = 32  # photos that a process takes at once
KINDS = {  # how what is said of a photo begins, and what its problem is called
    "missing": "missing",
    "unreadable": "unreadable",
    "not a regular file": "unreadable",
    "larger than": "unreadable",
    "empty": "empty",
}


class Finding(NamedTuple):
    """Something that is wrong.

    Attributes:
      name: of a photo or an archive.
      problem: of which kind it is, in a word.
      detail: in a few words.
    """

    name: str
    problem: str
    detail: str


class Subject(NamedTuple):
    """A photo to be examined.

    Attributes:
      name: of the photo.
      content: where it lies, or its bytes.
      group: photos of two groups are no duplicates.
    """

    name: str
    content: Place | bytes
    group: str = ""


class Examined(NamedTuple):
    """What came of a photo.

    Attributes:
      name: of the photo.
      digest: sha256 of its bytes and group; empty where they could not be read.
      finding: what is wrong, if anything is.
    """

    name: str
    digest: bytes
    finding: Finding | None


class Batch(NamedTuple):
    """Photos for one process, and the shorter side below which one is tiny."""

    subjects: Sequence[Subject]
    smallest: int


def examine_batch(batch: Batch, progress: Callable[[int], object]) -> list[Examined]:
    """Examines photos, in whichever process."""
    found = []
    with Reader() as reader:
        for subject in batch.subjects:
            found.append(_examine(subject, reader, batch.smallest))
            progress(1)
    return found


def examine(
    subjects: Iterable[Subject],
    smallest: int,
    count: int,
    progress: Callable[[int], object],
) -> Iterator[Examined]:
    """Examines photos in several processes; the order is not kept.

    Args:
      subjects: the photos.
      smallest: the shorter side in pixels below which a photo is tiny.
      count: processes.
      progress: is told of photos that are done.

    Yields:
      What came of each.
    """
    stream = iter(subjects)
    batches = (
        Batch(part, smallest)
        for part in iter(lambda: list(itertools.islice(stream, TOGETHER)), [])
    )
    for found in workers.run(examine_batch, batches, count, progress):
        yield from found


def _examine(subject: Subject, reader: Reader, smallest: int) -> Examined:
    name, content, group = subject
    digest = b""
    try:
        encoded = content if isinstance(content, bytes) else reader.read(content)
        digest = hashlib.sha256(group.encode() + encoded).digest()
        treat(encoded, Treatment())
        side = _shorter_side(encoded)
    except BadPhoto as bad:
        words = str(bad)
        fitting = (kind for start, kind in KINDS.items() if words.startswith(start))
        return Examined(name, digest, Finding(name, next(fitting, "broken"), words))
    tiny = Finding(name, "tiny", f"its shorter side has {side} pixels")
    return Examined(name, digest, tiny if side < smallest else None)


def _shorter_side(encoded: bytes) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return min(Image.open(io.BytesIO(encoded)).size)
