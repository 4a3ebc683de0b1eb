"""Names of files and classes: which are valid, and how any text is printed safely.

A name is text of one line. Spaces of every width (U+00A0, U+202F), joiners (U+200D) and
characters newer than Python's tables are valid, though `str.isprintable` refuses them.
"""

import re
from collections.abc import Sequence

_CONTROLS = "\x00-\x1f\x7f-\x9f"  # category Cc
_OTHERS = "\u2028\u2029\ud800-\udfff"  # separators of lines, lone surrogates
_DIRECTIONS = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_INVALID = re.compile(f"[{_CONTROLS}{_OTHERS}]")
# They break a line, control a terminal or reorder the text around them.
UNPRINTABLE = re.compile(f"[{_CONTROLS}{_OTHERS}{_DIRECTIONS}]")
# What is stripped from and joined in a line; spaces beyond ASCII belong to names.
SPACES = " \t\n\v\f\r\x1c\x1d\x1e\x1f\x85"
FIRST = 5  # names that are listed


def is_valid_name(name: str) -> bool:
    """Whether a text can be a name: not empty, of one line, without lone surrogates."""
    return bool(name) and not _INVALID.search(name)


def printable(text: str, longest: int | None = None) -> str:
    r"""Escapes what cannot be printed, as `\n` or `\x1b`; shortens long texts."""
    if longest is not None and len(text) > longest:
        half = (longest - 3) // 2
        text = f"{text[:half]}...{text[-half:]}"
    return UNPRINTABLE.sub(lambda match: ascii(match[0])[1:-1], text)


def one_line(text: object) -> str:
    """The text of an error or a note, printable and in one line."""
    return printable(re.sub(f"[{SPACES}]+", " ", str(text)).strip(SPACES))


def counted(number: int, singular: str, plural: str = "") -> str:
    """A number with its noun, whose plural has an s unless it is given."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def first_names(names: Sequence[str], longest: int | None = 80) -> str:
    """The first of some names, each shortened, and how many more there are."""
    more = len(names) - FIRST
    shown = ", ".join(printable(name, longest) for name in names[:FIRST])
    return f"{shown} and {more:,} more" if more > 0 else shown
