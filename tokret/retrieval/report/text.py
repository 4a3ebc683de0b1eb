"""Words and numbers of others, made safe to write into a page."""

import html
import json
import math
from typing import Any

LONGEST = 160  # characters of one name


def readable(text: str) -> str:
    """Cuts what is very long and replaces what cannot be printed.

    Args:
      text: of any origin; lone surrogates, control and direction characters too.
    """
    shown = "".join(each if each.isprintable() else "\ufffd" for each in text[:LONGEST])
    return shown + "\u2026" if len(text) > LONGEST else shown


def escaped(text: object) -> str:
    """Makes text safe between tags and in quoted attributes alike."""
    return html.escape(readable(str(text)), quote=True)


def script_json(value: Any) -> str:
    """JSON that may stand between script tags: nothing in it can end them.

    Args:
      value: what `json` can write, without NaN.

    Returns:
      ASCII, in which U+2028 and its like are escaped too.
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def percent(fraction: float | None, places: int = 2) -> str:
    """A fraction in percent; a dash where there is no number."""
    if fraction is None or math.isnan(fraction):
        return "\u2013"
    return f"{100 * fraction:.{places}f}"


def size_in_words(count: int | float) -> str:
    """Bytes in the largest unit of 1024 that leaves a number of at least 1."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"
