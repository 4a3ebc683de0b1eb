"""The process that decodes photos for a service: files of anyone, by C libraries.

It has bounded memory, needs no JAX, and ends with the service. A message is its length
in eight bytes and msgpack: [function, arguments], and of answers [result, error].
"""

import contextlib
import os
import queue
import resource
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import msgspec

from tokret.data.decoding import attempt, open_encoded
from tokret.data.preparing.photo_files import (
    BadPhotoError,
    PhotoLocation,
    PhotoReader,
)
from tokret.data.preparing.photo_processing import PhotoProcessing, process_photo
from tokret.data.views import View, photo_digest
from tokret.errors import UserError
from tokret.io.regular_files import open_file
from tokret.retrieval.report.thumbnails import thumbnail
from tokret.search.photos import upright_view

PREFIX = 8  # bytes
HEAD = 2**18  # bytes of a file that its size is read from
ORIENTATION = 0x0112  # of EXIF
GONE = "gone"  # the error for a photo that is not below the root, or was changed


class Source(msgspec.Struct, array_like=True):
    """A photo: its content, or the names below a root that files with it may have."""

    content: bytes = b""
    root: str = ""
    names: list[str] = []
    digest: str = ""  # of the content


class DecodedView(msgspec.Struct, array_like=True):
    """The pixels of a view [height, width, 3] uint8, and the whole photo's size."""

    pixels: bytes
    height: int
    width: int
    whole_width: int  # of the upright photo, in pixels
    whole_height: int


class PhotoInfo(msgspec.Struct, array_like=True):
    """What a photo's file has."""

    format: str  # as Pillow names it, JPEG
    width: int  # of the upright photo, in pixels
    height: int


def read_source(source: Source) -> bytes:
    """Returns a photo's bytes; of files only those that the index has seen.

    Raises:
      BadPhotoError: if no file below the root has this content.
    """
    if not source.root:
        return source.content
    root = Path(source.root).resolve()
    for name in source.names:
        with contextlib.suppress(OSError, RuntimeError, BadPhotoError):
            path = _below(root, name)
            with PhotoReader() as reader:
                content = reader.read(PhotoLocation(str(path)))
            # Whatever links have become since they were resolved.
            if photo_digest(content) == source.digest:
                return content
    raise BadPhotoError(GONE)


def _below(root: Path, name: str) -> Path:
    """The path of a file, links resolved.

    Raises:
      BadPhotoError: if it is not below the root.
    """
    path = (root / name).resolve()
    if not path.is_relative_to(root):
        raise BadPhotoError(GONE)
    return path


def decode_view(
    source: Source,
    box: tuple[float, float, float, float] | None,
    longest_side: int,
    max_pixels: int,
) -> DecodedView:
    """Decodes, crops and shrinks as `tokret query` does."""
    content = read_source(source)
    view = upright_view(content, "photo", box, longest_side, max_pixels)
    pixels = view.pixels()
    width, height = _upright_size(content, view, max_pixels)
    return DecodedView(pixels.tobytes(), *pixels.shape[:2], width, height)  # type: ignore[call-arg]


def _upright_size(content: bytes, view: View, max_pixels: int) -> tuple[int, int]:
    size = view.whole_size()
    whole = attempt(content, lambda data: open_encoded(data, max_pixels)).size
    width, height = sorted(whole, reverse=size[0] >= size[1])
    return width, height


def inspect(source: Source, longest_side: int, max_pixels: int) -> PhotoInfo:
    """Decodes a photo as the index will; returns its format and size."""
    content = read_source(source)
    view = upright_view(content, "photo", None, longest_side, max_pixels)
    view.pixels()
    photo = attempt(content, lambda data: open_encoded(data, max_pixels))
    return PhotoInfo(photo.format or "", *_upright_size(content, view, max_pixels))


def picture(source: Source, side: int, max_pixels: int) -> bytes:
    """The upright photo as WebP without metadata, at most `side` pixels long."""
    content = read_source(source)
    width, height = attempt(content, lambda data: open_encoded(data, max_pixels)).size
    shorter = max(1, round(side * min(width, height) / max(width, height)))
    # A JPEG is decoded at a fraction of its sides, which is far faster.
    small = PhotoProcessing(resize=shorter, upright=True, max_pixels=max_pixels)
    view = View(process_photo(content, small), "photo", None, side)
    return thumbnail(view, side)


def sizes(source: Source, max_pixels: int) -> list[tuple[int, int] | None]:
    """Width and height, upright, of each file; None of those that are gone."""
    root = Path(source.root).resolve()
    return [_size(root, name, max_pixels) for name in source.names]


def _size(root: Path, name: str, max_pixels: int) -> tuple[int, int] | None:
    try:
        with open_file(_below(root, name)) as file:
            head = file.read(HEAD)
            try:
                return _oriented(head, max_pixels)
            except BadPhotoError:  # of a format that is read whole
                return _oriented(head + file.read(), max_pixels)
    except (OSError, RuntimeError, MemoryError, UserError, BadPhotoError):
        return None


def _oriented(content: bytes, max_pixels: int) -> tuple[int, int]:
    def read(data: bytes) -> tuple[int, int]:
        photo = open_encoded(data, max_pixels)
        turned = photo.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
        return (photo.height, photo.width) if turned else photo.size

    return attempt(content, read)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "decode_view": decode_view,
    "inspect": inspect,
    "picture": picture,
    "sizes": sizes,
}


def pack(value: Any) -> bytes:
    """A message's bytes."""
    body = msgspec.msgpack.encode(value)
    return len(body).to_bytes(PREFIX, "little") + body


def serve(max_bytes: int, functions: dict[str, Callable[..., Any]] = FUNCTIONS) -> None:
    """Reads messages from standard input, and writes answers to standard output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the service decides
    cv2.setNumThreads(1)  # there is a worker for each core
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not get into the pipe
    messages: queue.SimpleQueue[tuple[str, Source, list[Any]]] = queue.SimpleQueue()
    threading.Thread(
        target=_receive, args=(sys.stdin.buffer, messages), daemon=True
    ).start()
    _limit_memory(max_bytes)
    while True:
        name, source, arguments = messages.get()
        output.write(pack(_answer(functions[name], source, arguments)))
        output.flush()


def _receive(pipe: BinaryIO, messages: "queue.SimpleQueue[Any]") -> None:
    """Receives messages; when the pipe ends, the process does, even while decoding."""
    kind = tuple[str, Source, list[Any]]
    try:
        while prefix := pipe.read(PREFIX):
            body = pipe.read(int.from_bytes(prefix, "little"))
            messages.put(msgspec.msgpack.decode(body, type=kind))
    finally:
        os._exit(0)


def _limit_memory(more: int) -> None:
    """Bounds the address space to what is in use now and `more` bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _answer(
    function: Callable[..., Any], source: Source, arguments: list[Any]
) -> tuple[Any, str]:
    try:
        return function(source, *arguments), ""
    except (BadPhotoError, UserError) as error:
        return None, str(error) or "cannot be decoded"
    except MemoryError:
        return None, "takes too much memory to decode"
