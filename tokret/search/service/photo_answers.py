"""Photos of the index as the API shows them: with their sizes, and if they are gone."""

import asyncio
import contextlib
import re
from collections.abc import Sequence
from typing import TypeVar

from starlette.requests import Request

from tokret.search.filters import folder_of, label_of
from tokret.search.searcher import PhotoInfo
from tokret.search.service.answers import Photo
from tokret.search.service.decoding_worker import Source
from tokret.search.service.problems import Problem
from tokret.search.service.state import Service

SIZES_SECONDS = 0.05  # that an answer waits for sizes, which only the layout needs
MOST_TASKS = 32  # that read sizes; requests need not wait for them, so they may pile up
Shown = TypeVar("Shown", bound=Photo)


def photo_answer(digest: str, name: str) -> Photo:
    """A photo by its id and its path from the root."""
    folder = folder_of(name)
    return Photo(id=digest, name=name, folder=folder, label=label_of(folder))


async def complete(service: Service, photos: Sequence[Shown]) -> list[Shown]:
    """Sets the sizes of photos, and whether their files are missing."""
    names = [photo.name for photo in photos]
    missing = await asyncio.to_thread(_missing, service, names)
    unknown = [
        photo
        for photo, gone in zip(photos, missing, strict=True)
        if not gone and service.sizes.get(photo.id) is None
    ]
    if unknown and len(service.tasks) < MOST_TASKS:
        reading = asyncio.create_task(_read_sizes(service, unknown))
        service.tasks.add(reading)
        reading.add_done_callback(service.tasks.discard)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(reading), SIZES_SECONDS)
    for photo, gone in zip(photos, missing, strict=True):
        photo.missing = gone
        photo.width, photo.height = service.sizes.get(photo.id) or (None, None)
    return [*photos]


def _missing(service: Service, names: Sequence[str]) -> list[bool]:
    return [not (service.root / name).is_file() for name in names]


async def _read_sizes(service: Service, photos: Sequence[Photo]) -> None:
    """Reads the headers of photos, once for each content."""
    with contextlib.suppress(Problem):
        names = [photo.name for photo in photos]
        sizes = await service.decoder.sizes(str(service.root), names)
        for photo, size in zip(photos, sizes, strict=True):
            if size:
                service.sizes.put(photo.id, size)


def id_of(request: Request) -> str:
    """The photo's id in an address.

    Raises:
      Problem: 404 if it is none.
    """
    digest = str(request.path_params["id"])
    if not re.fullmatch(r"[0-9a-f]{16}", digest):
        raise Problem(404, "there is no such photo: an id has 16 hexadecimal digits")
    return digest


async def find_photo(service: Service, digest: str) -> PhotoInfo | None:
    """A photo of the index; None if it has no such photo."""
    return await asyncio.to_thread(service.searcher.photo, digest)


async def find_source(
    service: Service, digest: str, field: str = "", content: bytes = b""
) -> Source:
    """Where a photo's bytes are: uploaded now or before, or below the root.

    Raises:
      Problem: 404 if it is unknown.
    """
    if not content and (upload := service.uploads.get(digest)):
        content = upload.content
    if content:
        return Source(content)
    photo = await find_photo(service, digest)
    if photo is None:
        words = "it is not in the index, or was uploaded and forgotten since"
        raise Problem(404, f"there is no photo {digest}: {words}", field)
    return Source(b"", str(service.root), [*photo.names], digest)


async def size_of(service: Service, digest: str) -> tuple[int, int] | None:
    """A photo's width and height, upright; None if its files are gone.

    Raises:
      Problem: 404 if it is unknown.
    """
    upload = service.uploads.get(digest)
    if upload:
        return upload.width, upload.height
    source = await find_source(service, digest)
    known = service.sizes.get(digest)
    if known is None:
        sizes = await service.decoder.sizes(source.root, source.names)
        known = next(filter(None, sizes), None)
        if known is not None:
            service.sizes.put(digest, known)
    return known
