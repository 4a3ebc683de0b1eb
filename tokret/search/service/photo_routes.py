"""The photos of the index: listed, shown, added and removed."""

import asyncio
import io
from typing import Any

import numpy as np
from PIL import Image
from starlette.requests import Request
from starlette.responses import Response

from tokret.data.views import Box, View
from tokret.search.filters import Filters
from tokret.search.service.answers import (
    AttentionAnswer,
    AttentionForm,
    BrowseAnswer,
    BrowseForm,
    FiltersAnswer,
    ImageForm,
    PhotoAnswer,
)
from tokret.search.service.forms import parse_query
from tokret.search.service.photo_answers import (
    complete,
    find_photo,
    find_source,
    id_of,
    photo_answer,
    size_of,
)
from tokret.search.service.problems import Problem, json_response
from tokret.search.service.searching import box_of, pixels_of
from tokret.search.service.state import Service

SIDES = (80, 160, 320, 640, 1280, 2560, 5120)  # of pictures, in pixels
WHOLE = 16_383  # WebP's longest side
FOREVER = "private, max-age=31536000, immutable"


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


async def browse(request: Request) -> Response:
    """Lists photos by name."""
    service = _service(request)
    form = parse_query(request.query_params, BrowseForm)
    filters = Filters(tuple(form.folder), tuple(form.label))
    found, total = await asyncio.to_thread(
        service.searcher.browse, filters, form.offset, form.top
    )
    photos = [photo_answer(digest, name) for digest, name in found]
    return json_response(
        BrowseAnswer(
            photos=await complete(service, photos),
            total=total,
            more=form.offset + len(photos) < total,
        )
    )


async def filters(request: Request) -> Response:
    """Lists folders and labels."""
    searcher = _service(request).searcher
    folders, labels = await asyncio.gather(
        asyncio.to_thread(searcher.folders), asyncio.to_thread(searcher.labels)
    )
    return json_response(FiltersAnswer(folders=folders, labels=labels))


async def show(request: Request) -> Response:
    """What is known of a photo."""
    service, digest = _service(request), id_of(request)
    size = await size_of(service, digest)
    photo = await find_photo(service, digest)
    return json_response(
        PhotoAnswer(
            id=digest,
            names=list(photo.names) if photo else [],
            label=photo.label if photo else "",
            width=size[0] if size else None,
            height=size[1] if size else None,
            missing=size is None,
        )
    )


async def image(request: Request) -> Response:
    """A picture of a photo; of its content and side, it never changes."""
    service, digest = _service(request), id_of(request)
    wanted = parse_query(request.query_params, ImageForm).side
    side = next((s for s in SIDES if s >= (wanted or WHOLE)), WHOLE)
    source = await find_source(service, digest)
    tag = f'"{digest}-{side}"'
    headers = {"ETag": tag, "Cache-Control": FOREVER}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    picture = service.pictures.get((digest, side))
    if picture is None:
        picture = await service.decoder.picture(source, side)
        service.pictures.put((digest, side), picture, len(picture))
    return Response(picture, headers=headers, media_type="image/webp")


async def attention(request: Request) -> Response:
    """Where the model's tokens look."""
    service, digest = _service(request), id_of(request)
    box = box_of(parse_query(request.query_params, AttentionForm).box)
    with service.admitted():
        return json_response(await _attention(service, digest, box))


async def _attention(service: Service, digest: str, box: Box | None) -> AttentionAnswer:
    loaded, source = service.loaded, await find_source(service, digest)
    decoded = await service.decoder.view(
        source, box, loaded.searcher.model.longest_side
    )
    view = _decoded_view(pixels_of(decoded))
    found = await asyncio.wrap_future(
        loaded.device.call(lambda: loaded.attention_maps(view))
    )
    if found is None:
        raise Problem(404, "the index's model has no attention maps")
    tokens, height, width = found.shape
    return AttentionAnswer(
        tokens=tokens,
        height=height,
        width=width,
        maps=np.round(found.reshape(tokens, -1).astype(float), 5).tolist(),
    )


def _decoded_view(pixels: Any) -> View:
    """Decoded pixels as the view that `token_maps` takes; nothing is lost."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=0)
    return View(buffer.getvalue(), "photo", None, max(pixels.shape))
