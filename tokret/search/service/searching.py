"""POST /search: photos and ids -> descriptors -> one query -> results."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from tokret.data.views import Box, photo_digest
from tokret.errors import UserError
from tokret.search.filters import Filters, folder_of
from tokret.search.near_duplicates import (
    known_threshold,
    search_distinct,
)
from tokret.search.query_combination import combine
from tokret.search.querying import parse_box
from tokret.search.searcher import Hit, Searcher
from tokret.search.service.answers import (
    Query,
    Result,
    SearchAnswer,
    SearchForm,
    Seconds,
)
from tokret.search.service.decoding_worker import DecodedView, Source
from tokret.search.service.form_parts import Part, read_form
from tokret.search.service.forms import parse_parts
from tokret.search.service.photo_answers import (
    complete,
    find_photo,
    find_source,
    size_of,
)
from tokret.search.service.problems import Problem, json_response
from tokret.search.service.state import Service, Upload
from tokret.shapes import Float

FILES = ("photo", "unlike_photo")


class _Example(NamedTuple):
    """A photo to resemble, or not to."""

    id: str
    field: str
    content: bytes = b""  # of an upload


class _Embedded(NamedTuple):
    descriptor: Float[np.ndarray, " d"]
    size: tuple[int, int] | None  # width and height of the whole photo, if known
    decode: float  # seconds
    extract: float


async def search(request: Request) -> Response:
    """Answers a query."""
    service: Service = request.app.state.service
    service.require_loaded()
    with service.admitted() as count_bytes:
        parts = await read_form(request, service.limits, count_bytes)
        form, files = parse_parts(parts, SearchForm, FILES)
        return json_response(await _answer(service, form, files, count_bytes))


async def _answer(
    service: Service,
    form: SearchForm,
    files: Sequence[Part],
    count_bytes: Callable[[int], None],
) -> SearchAnswer:
    positive = _examples(files, "photo", form.like, "like")
    negative = _examples(files, "unlike_photo", form.unlike, "unlike")
    if not positive:
        raise Problem(
            400, "name a photo to resemble: upload one, or give its id", "photo"
        )
    box = box_of(form.box)
    boxes: list[Box | None] = [box, *[None] * (len(positive) + len(negative) - 1)]
    jobs = [
        _embed(service, example, part, count_bytes)
        for example, part in zip([*positive, *negative], boxes, strict=True)
    ]
    extractor = service.loaded.extractor
    embedded = await _all(jobs)
    vectors = np.stack([each.descriptor for each in embedded])
    query = _combine(vectors[: len(positive)], vectors[len(positive) :])
    start = time.perf_counter()
    hits = await _hits(service, form, query, {each.id for each in positive})
    seconds = time.perf_counter() - start
    total = await asyncio.to_thread(service.searcher.num_searched, _filters(form))
    if service.loaded.extractor is not extractor:
        raise Problem(503, "the index has another model since; try again", "", 1)
    size = embedded[0].size or await size_of(service, positive[0].id)
    return SearchAnswer(
        query=Query(
            positive=[each.id for each in positive],
            negative=[each.id for each in negative],
            box=box,
            width=size[0] if size else None,
            height=size[1] if size else None,
        ),
        results=await complete(service, [_result(hit) for hit in hits[: form.top]]),
        total=total,
        more=len(hits) > form.top,
        seconds=Seconds(
            decode=max(each.decode for each in embedded),
            extract=max(each.extract for each in embedded),
            search=seconds,
        ),
    )


def _filters(form: SearchForm) -> Filters:
    return Filters(tuple(form.folder), tuple(form.label))


def _combine(
    positive: Float[np.ndarray, "p d"], negative: Float[np.ndarray, "n d"]
) -> Float[np.ndarray, " d"]:
    if len(positive) + len(negative) == 1:
        return positive[0]  # as it is, to the last bit
    try:
        return combine(positive, negative)
    except UserError as error:
        raise Problem(400, str(error)) from error


def _examples(
    files: Sequence[Part], file_field: str, ids: Sequence[str], id_field: str
) -> list[_Example]:
    uploaded = [
        _Example(photo_digest(part.content), file_field, part.content)
        for part in files
        if part.field == file_field
    ]
    return [*uploaded, *(_Example(each, id_field) for each in ids)]


def box_of(text: str | None) -> Box | None:
    """Parses a form's box; a Problem names the field."""
    try:
        return parse_box(text)
    except UserError as error:
        raise Problem(400, str(error), "box") from error


async def _all(jobs: Sequence[Awaitable[_Embedded]]) -> list[_Embedded]:
    """Waits for all; the first error ends the request when none is running."""
    found = await asyncio.gather(*jobs, return_exceptions=True)
    for each in found:
        if isinstance(each, BaseException):
            raise each
    return [each for each in found if not isinstance(each, BaseException)]


async def _embed(
    service: Service,
    example: _Example,
    box: Box | None,
    count_bytes: Callable[[int], None],
) -> _Embedded:
    """Takes a descriptor from memory or from the index, or extracts it."""
    loaded = service.loaded
    kept = loaded.descriptors.get((example.id, box))
    upload = service.uploads.get(example.id)
    size = (upload.width, upload.height) if upload else None
    if kept is not None and (upload is not None or not example.content):
        return _Embedded(kept, size, 0.0, 0.0)
    start = time.perf_counter()
    if box is None and not example.content and await find_photo(service, example.id):
        rows = await asyncio.wrap_future(
            loaded.device.call(lambda: loaded.searcher.descriptors([example.id]))
        )
        return _Embedded(rows[0], size, 0.0, time.perf_counter() - start)
    source = await find_source(service, example.id, example.field, example.content)
    descriptors = loaded.descriptors  # of the model that embeds, or of one before it
    side = loaded.searcher.model.longest_side
    with loaded.device.decoding():
        view = await _decode(service, source, box, side, example.field)
    decoded = time.perf_counter()
    count_bytes(len(view.pixels))  # they wait for the device
    if example.content:
        upload = Upload(example.content, view.whole_width, view.whole_height)
        service.uploads.put(example.id, upload, len(example.content))
    descriptor = await asyncio.wrap_future(loaded.device.embed(pixels_of(view)))
    descriptors.put((example.id, box), descriptor)
    size = view.whole_width, view.whole_height
    return _Embedded(descriptor, size, decoded - start, time.perf_counter() - decoded)


async def _decode(
    service: Service, source: Source, box: Box | None, side: int, field: str
) -> DecodedView:
    try:
        return await service.decoder.view(source, box, side)
    except Problem as problem:
        if problem.status == 422:
            problem.field = "box" if "box=" in problem.error else field
        raise


def pixels_of(view: DecodedView) -> Any:
    """The pixels [height, width, 3] uint8."""
    return np.frombuffer(view.pixels, np.uint8).reshape(view.height, view.width, 3)


async def _hits(
    service: Service,
    form: SearchForm,
    query: Float[np.ndarray, " d"],
    positive: set[str],
) -> list[Hit]:
    """The hits from the offset on; one more than `top` if there are more."""
    depth = form.offset + form.top + 1
    if depth > service.limits.depth:
        raise Problem(400, f"offset + top is above {service.limits.depth}", "offset")
    skipped = positive if form.leave_out_query == "yes" else set()
    device, searcher = service.loaded.device, service.searcher
    filters = _filters(form)
    if form.near_duplicates == "hide":
        call = partial(_distinct, searcher, query, depth, filters, skipped)
        return (await asyncio.wrap_future(device.call(call)))[form.offset :]
    # Skipped here, so that requests with other photos are one search.
    copies = await asyncio.to_thread(searcher.num_copies, skipped) if skipped else 0
    found = await asyncio.wrap_future(device.search(query, depth + copies, filters))
    return [hit for hit in found if hit.id not in skipped][form.offset : depth]


def _distinct(
    searcher: Searcher,
    query: Float[np.ndarray, " d"],
    depth: int,
    filters: Filters,
    skipped: set[str],
) -> list[Hit]:
    similar = known_threshold(searcher).score
    return search_distinct(searcher, query, depth, filters, skipped, similar)


def _result(hit: Hit) -> Result:
    return Result(
        id=hit.id,
        name=hit.name,
        label=hit.label,
        folder=folder_of(hit.name),
        score=hit.score,
        near_duplicates=hit.near_duplicates,
    )
