"""Descriptions and ranges of a config's fields, for `typing.Annotated`."""

import sys

from msgspec import Meta

FINITE = sys.float_info.max  # NaN and infinity are not within it


def text(description: str) -> Meta:
    """Documents a field that takes text, a choice or a truth value."""
    return Meta(description=description)


def integer(description: str, least: int = 0, most: int | None = None) -> Meta:
    """Documents an integer and its range, ends included."""
    return Meta(description=description, ge=least, le=most)


def real(description: str, least: int | float = 0, most: int | float = FINITE) -> Meta:
    """Documents a finite number and its range, ends included."""
    return Meta(description=description, ge=least, le=most)


def fraction(description: str) -> Meta:
    """Documents a number in [0, 1)."""
    return Meta(description=description, ge=0.0, lt=1.0)
