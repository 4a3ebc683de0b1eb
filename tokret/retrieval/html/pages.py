"""Templates -> HTML pages of one file each, with a strict security policy.

File, class and dataset names are untrusted: jinja2 escapes every value, and before that
`readable` cuts it and replaces what cannot be printed. The policy of a page
(Content-Security-Policy) allows only its own style and script, by their digests.
"""

import base64
import functools
import hashlib
import math
from importlib import resources
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from tokret.names import UNPRINTABLE

MAX_LENGTH = 160  # characters of one value


def readable(value: object) -> object:
    """Cuts what is very long and replaces characters that cannot be printed.

    The value is of any type and origin, also a string with lone surrogates, control and
    direction characters; numbers and HTML (`Markup`) are returned as they are.
    """
    if isinstance(value, int | float | Markup):
        return value
    text = str(value)
    cut = text[:MAX_LENGTH]
    shown = UNPRINTABLE.sub("\ufffd", cut)
    return shown + "\u2026" if len(text) > MAX_LENGTH else shown


def percent(fraction: int | float | None, places: int = 2) -> str:
    """A fraction in percent; a dash for None and NaN."""
    if fraction is None or math.isnan(fraction):
        return "\u2013"
    return f"{100 * fraction:.{places}f}"


def thousands(number: int | float, places: int = 0) -> str:
    """A number with commas between its thousands."""
    return f"{number:,.{places}f}"


def render(package: str, page: str, /, **values: Any) -> str:
    """Renders a page to HTML in which every value is escaped.

    The package has the template PAGE.html, which extends `base.html`, the style
    PAGE.css, which is added to `base.css`, and the script PAGE.js, if there is one.
    """
    style = _text(__package__, "base.css") + _text(package, f"{page}.css")
    return template(package, f"{page}.html").render(
        style=Markup(style), script=Markup(_text(package, f"{page}.js")), **values
    )


def template(package: str, name: str) -> Template:
    """A template of a package, in which every value is escaped and made `readable`."""
    return _environment(package).get_template(name)


@functools.cache
def _environment(package: str) -> Environment:
    """Compiles the templates of a package, and the shared ones, once."""
    loaders = [PackageLoader(package, ""), PackageLoader(__package__, "")]
    environment = Environment(
        loader=ChoiceLoader(loaders),
        autoescape=True,
        finalize=readable,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {
        "allow_nan": False,
        "separators": (",", ":"),
    }
    environment.filters |= {
        "percent": percent,
        "inline": _inline,
        "digest": _digest,
        "thousands": thousands,
    }
    return environment


def _text(package: str, name: str) -> str:
    """A file of a package; "" if there is none."""
    file = resources.files(package) / name
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def _inline(data: bytes) -> Markup:
    return Markup(base64.b64encode(data).decode())


def _digest(text: str) -> Markup:
    return "sha256-" + _inline(hashlib.sha256(text.encode()).digest())
