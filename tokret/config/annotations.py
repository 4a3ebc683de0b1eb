"""Fields of a config, as in `size: int = integer(512, "side in pixels", 1)`.

First their default, or ... for a field that must be given; then what they are.
"""

import dataclasses
import sys
from typing import Any

from msgspec import Meta

FINITE = sys.float_info.max  # NaN and infinity are not within it


def documented(default: Any, meta: Meta) -> Any:
    """Returns a field; `parsing.field_types` has its annotation."""
    default = dataclasses.MISSING if default is ... else default
    return dataclasses.field(default=default, metadata={"meta": meta})


def text(default: Any, description: str) -> Any:
    """Returns a field that takes text, a choice or a truth value."""
    return documented(default, Meta(description=description))


def integer(
    default: Any, description: str, least: int = 0, most: int | None = None
) -> Any:
    """Returns an integer field with its range, ends included."""
    return documented(default, Meta(description=description, ge=least, le=most))


def real(
    default: Any, description: str, least: int | float = 0, most: int | float = FINITE
) -> Any:
    """Returns a field of a finite number with its range, ends included."""
    return documented(default, Meta(description=description, ge=least, le=most))


def fraction(default: Any, description: str) -> Any:
    """Returns a field of a number in [0, 1)."""
    return documented(default, Meta(description=description, ge=0.0, lt=1.0))


def location(default: Any, description: str) -> Any:
    """Returns a text field of a file or folder, by its path or its URL.

    The field keeps the text; `urls.path_of` turns it into a path where it is used.
    """
    return documented(default, Meta(description=description, extra={"url": True}))


def takes_urls(meta: Meta | None) -> bool:
    """Whether a field's annotation is that of `location`."""
    return meta is not None and bool(meta.extra and meta.extra.get("url"))
