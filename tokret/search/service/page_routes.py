"""The page, its style and script, and the form for the token."""

import functools
import hashlib
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from tokret.retrieval.html.pages import readable, thousands
from tokret.search.service.form_parts import read_form
from tokret.search.service.guard import COOKIE
from tokret.search.service.problems import Problem
from tokret.search.service.state import Service

PACKAGE = "tokret.search.service.page"
SHARED = "tokret.retrieval.html"  # its base.css is that of reports, too
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
A_YEAR = 365 * 24 * 3600


@functools.cache
def static_files() -> dict[str, tuple[bytes, str, str]]:
    """The content, type and ETag of each file by name: all that /static serves."""
    folder = resources.files(PACKAGE)
    files = [*folder.iterdir(), resources.files(SHARED) / "base.css"]
    found = {}
    for file in files:
        kind = TYPES.get("." + file.name.rpartition(".")[2])
        if kind:
            content = file.read_bytes()
            tag = hashlib.blake2b(content, digest_size=8).hexdigest()
            found[file.name] = content, kind, f'"{tag}"'
    return found


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(PACKAGE, ""),
        autoescape=True,
        finalize=readable,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["thousands"] = thousands
    return environment


def _page(template: str, code: int, **values: object) -> Response:
    html = _environment().get_template(template).render(**values)
    headers = {"Cache-Control": "no-store"}
    return Response(html, code, headers, "text/html")


async def index(request: Request) -> Response:
    """The page."""
    service: Service = request.app.state.service
    loaded = service.loaded if service.status == "ready" else None
    model = loaded.searcher.model if loaded else None
    return _page(
        "page.html",
        200,
        name=loaded.searcher.root.name if loaded else "",
        num_photos=loaded.searcher.num_photos if loaded else None,
        model=f"{model.fields['head']} over {model.fields['trunk']}" if model else "",
        read_only=service.read_only,
    )


async def static(request: Request) -> Response:
    """A file of the page."""
    found = static_files().get(request.path_params["name"])
    if found is None:
        raise Problem(404, "there is no such file")
    content, kind, tag = found
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=kind)


async def login(request: Request) -> Response:
    """The form for the token."""
    return _page("login.html", 401, refused=False)


async def take_token(request: Request) -> Response:
    """Keeps the page's cookie where the token is right."""
    service: Service = request.app.state.service
    access = service.access
    with service.admitted() as count_bytes:
        parts = await read_form(request, service.limits, count_bytes)
    given = "".join(part.text for part in parts if part.field == "token")
    if not access.token or not access.is_token(given.strip()):
        return _page("login.html", 401, refused=True)
    response = RedirectResponse("/", 303)
    response.set_cookie(
        COOKIE, access.cookie, A_YEAR, httponly=True, samesite="strict", path="/"
    )
    return response
