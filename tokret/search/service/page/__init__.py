"""The service's page: one HTML template, its style, script modules and icon.

Nothing is inline and nothing comes from elsewhere, so that a strict policy
(Content-Security-Policy) can allow only what the service itself serves.
"""

import functools
from importlib import resources

from tokret.retrieval import html
from tokret.retrieval.html.pages import template

MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


def render_page(
    name: str,
    model: str,
    num_photos: int | None,
    *,
    read_only: bool,
    attention: bool = True,
) -> str:
    """Renders the page to HTML.

    Args:
        name: The index's name for people, such as its root's last folder.
        model: The model's name for people.
        num_photos: Photos of the index; None while it is being loaded, when the page
            reloads itself as soon as a request is answered.
        read_only: Whether photos can be neither added nor removed.
        attention: Whether the model has maps of where its tokens look.
    """
    return template(__package__, "page.html").render(
        name=name,
        model=model,
        num_photos=num_photos,
        read_only=read_only,
        attention=attention,
    )


def render_login(*, refused: bool) -> str:
    """Renders the form that sends a token as POST /login (multipart/form-data).

    Args:
        refused: Whether a token was sent that is not the service's.
    """
    return template(__package__, "login.html").render(refused=refused)


@functools.cache
def static_files() -> dict[str, tuple[bytes, str]]:
    """All files that the page loads: {name: (content, media type)}."""
    found = [
        *resources.files(__package__).iterdir(),
        resources.files(html) / "base.css",
    ]
    return {
        file.name: (file.read_bytes(), MEDIA_TYPES[suffix])
        for file in found
        for suffix in MEDIA_TYPES
        if file.name.endswith(suffix)
    }
