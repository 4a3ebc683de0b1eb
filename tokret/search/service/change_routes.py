"""Photos that are added to the index, and removed from it."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from tokret.data.views import photo_digest
from tokret.errors import UserError
from tokret.names import counted
from tokret.runtime.signals import report
from tokret.search.catalogue import open_catalogue
from tokret.search.index_changes import add_files, remove_photos
from tokret.search.index_writer import Limits
from tokret.search.service.answers import AddAnswer, AddForm, RemoveAnswer
from tokret.search.service.decoding_worker import Source
from tokret.search.service.form_parts import Part, read_form
from tokret.search.service.forms import parse_parts
from tokret.search.service.photo_answers import (
    complete,
    find_photo,
    id_of,
    photo_answer,
)
from tokret.search.service.problems import Problem, json_response
from tokret.search.service.saving import make_folder, save_photo
from tokret.search.service.state import Service


def _changeable(request: Request) -> Service:
    service: Service = request.app.state.service
    service.require_loaded()
    if service.read_only:
        raise Problem(403, "the service is read-only")
    return service


async def add(request: Request) -> Response:
    """Saves photos below the root and adds them to the index."""
    service = _changeable(request)
    with service.admitted() as count_bytes:
        parts = await read_form(request, service.limits, count_bytes)
        form, files = parse_parts(parts, AddForm, ("photo",))
        if not files:
            raise Problem(400, "name a photo to add", "photo")
        side = service.searcher.model.longest_side
        kinds = [
            (await service.decoder.inspect(Source(part.content), side)).format
            for part in files
        ]
        async with service.adding:
            names = await _add(service, form.folder, files, kinds)
        photos = [photo_answer(digest, name) for digest, name in names.items()]
        return json_response(AddAnswer(photos=await complete(service, photos)), 201)


async def _add(
    service: Service, folder: str, files: Sequence[Part], kinds: Sequence[str]
) -> Mapping[str, str]:
    """Saves and adds photos; returns their names by id, also of those it had before."""
    known: dict[str, str] = {}
    new: dict[str, tuple[Part, str]] = {}
    for part, kind in zip(files, kinds, strict=True):
        digest = photo_digest(part.content)
        photo = await find_photo(service, digest)
        existing = (
            [n for n in photo.names if (service.root / n).is_file()] if photo else []
        )
        if existing:
            known[digest] = existing[0]
        else:
            new[digest] = part, kind
    saved: list[Path] = []
    try:
        target = await asyncio.to_thread(make_folder, service.root, folder)
        for part, kind in new.values():
            save = (target, part.filename or "", kind, part.content)
            saved.append(await asyncio.to_thread(save_photo, *save))
    except BaseException:
        _delete(saved)
        raise
    if saved:
        await _change(
            service, lambda: _add_saved(service, saved), lambda: _delete(saved)
        )
    root = service.root.resolve()
    names = [path.relative_to(root).as_posix() for path in saved]
    return known | dict(zip(new, names, strict=True))


def _add_saved(service: Service, paths: Sequence[Path]) -> None:
    """Is called by the device. Files that are not in the index then are deleted."""
    loaded = service.loaded
    root, extractor = service.root.resolve(), loaded.indexing_extractor()
    limits = Limits(max_pixels=service.limits.pixels)
    try:
        added = add_files(
            loaded.index, paths, lambda copy: extractor, root=root, limits=limits
        )
    except BaseException:
        _delete_unknown(loaded.index, root, paths)
        raise
    _delete([root / name for name in added.bad])
    _refresh(service)
    for why in added.bad.values():
        others = f"; {counted(len(added.ids), 'other photo')} added" * bool(added.ids)
        raise Problem(422, f"{why}{others}", "photo")


def _delete(paths: Sequence[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _delete_unknown(index: Path, root: Path, paths: Sequence[Path]) -> None:
    """If the index cannot be read all stay: an update of it takes them in."""
    names = {path.relative_to(root).as_posix(): path for path in paths}
    with contextlib.suppress(UserError), open_catalogue(index) as catalogue:
        known = {entry.name for entry in catalogue.photos(names)}
        _delete([path for name, path in names.items() if name not in known])


def _refresh(service: Service) -> None:
    """The index has changed, even if it cannot be read now; later turns try again."""
    try:
        service.searcher.refresh()
    except UserError as error:
        report(f"the index was changed and cannot be read: {error}")


async def remove(request: Request) -> Response:
    """Removes a photo from the index; its files are kept."""
    service = _changeable(request)
    digest = id_of(request)
    photo = await find_photo(service, digest)
    if photo is None:
        raise Problem(404, f"there is no photo {digest} in the index")

    def removed() -> None:
        remove_photos(service.loaded.index, [digest])
        _refresh(service)

    async with service.adding:
        if service.searcher.num_photos == len(photo.names):
            raise Problem(409, "the last photo of an index cannot be removed")
        await _change(service, removed)
    return json_response(RemoveAnswer(id=digest, names=list(photo.names)))


async def _change(
    service: Service,
    change: Callable[[], Any],
    undo: Callable[[], None] = lambda: None,
) -> None:
    """Has the device change the index; calls `undo` if it is cancelled before."""
    future = service.loaded.device.call(change)
    try:
        await asyncio.wrap_future(future)
    except asyncio.CancelledError:
        if future.cancelled():
            undo()
        raise
    except UserError as error:
        report(f"the index was not changed: {error}")
        words = "the index cannot be changed now; another process may be updating it"
        raise Problem(503, words, retry_after=5) from error
