"""The page, its style and scripts, and the form for the token."""

import hashlib

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from tokret.config.models import model_title
from tokret.retrieval.report.token_maps import has_token_maps
from tokret.search.service.form_parts import read_form
from tokret.search.service.guard import COOKIE
from tokret.search.service.limits import Limits
from tokret.search.service.page import render_login, render_page, static_files
from tokret.search.service.problems import Problem
from tokret.search.service.state import Service

A_YEAR = 365 * 24 * 3600
LOGIN = Limits(body_bytes=16_384, receive_seconds=5.0)  # of the form for the token


def _html(text: str, status: int = 200) -> Response:
    return Response(text, status, {"Cache-Control": "no-store"}, "text/html")


async def index(request: Request) -> Response:
    """The page, also while the index is being loaded."""
    service: Service = request.app.state.service
    if service.status != "ready":
        return _html(render_page("", "", None, read_only=service.read_only))
    searcher = service.searcher
    fields = searcher.model.fields
    return _html(
        render_page(
            searcher.root.name,
            model_title(fields),
            searcher.num_photos,
            read_only=service.read_only,
            attention=has_token_maps(fields),
        )
    )


async def static(request: Request) -> Response:
    """A file of the page."""
    found = static_files().get(request.path_params["name"])
    if found is None:
        raise Problem(404, "there is no such file")
    content, kind = found
    tag = f'"{hashlib.blake2b(content, digest_size=8).hexdigest()}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=kind)


async def login(request: Request) -> Response:
    """The form for the token."""
    return _html(render_login(refused=False), 401)


async def take_token(request: Request) -> Response:
    """Sets the page's cookie where the token is right."""
    service: Service = request.app.state.service
    access = service.access
    # Anyone may send it, so that it takes nothing which other requests need.
    parts = await read_form(request, LOGIN, lambda number: None)
    given = "".join(part.text for part in parts if part.field == "token")
    if not access.token or not access.is_token(given.strip()):
        return _html(render_login(refused=True), 401)
    response = RedirectResponse("/", 303)
    response.set_cookie(
        COOKIE, access.cookie, A_YEAR, httponly=True, samesite="strict", path="/"
    )
    return response
