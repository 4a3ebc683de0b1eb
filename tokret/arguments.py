"""Checks of arguments: names in a table, numbers in a range."""

import difflib
import errno
import math
import numbers
import os
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypeVar

from tokret.errors import UserError
from tokret.names import printable

Number = TypeVar("Number", int, float)


def choose(table: Mapping[str, Any], name: str, field: str) -> Any:
    """Looks a name up in a table of choices.

    Raises:
      UserError: if there is no such name; it lists the existing ones.
    """
    if not isinstance(name, str) or name not in table:
        names = ", ".join(sorted(table))
        raise UserError(f"{field} is {name!r}; it must be one of: {names}")
    return table[name]


def within(
    field: str, value: Number, least: int | float, most: int | float = math.inf
) -> Number:
    """Returns a number in [least, most]; NaN is in none.

    Raises:
      UserError: if it is no number, or not in the range.
    """
    if not isinstance(value, numbers.Real) or not least <= value <= most:
        limits = f"at least {least}" if most == math.inf else f"in [{least}, {most}]"
        raise UserError(f"{field} is {value}; it must be {limits}")
    return value


def url_problem(text: str) -> str:
    """Why a text is not the path of a file or folder: it is a URL; "" if it is none.

    As a path gs://bucket/run would be a folder called gs: on the local disk, and so
    would gs:/bucket/run, which is what pathlib makes of it.
    """
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/(/?)", text)
    if not found:
        return ""
    if not found[2]:
        return (
            f"{printable(text, 80)!r} has one slash after {found[1]}:, a URL has two; "
            f"for a local folder write ./{found[1]}:/"
        )
    return (
        f"{printable(text, 80)!r} is a URL, but only a local path is taken here; copy "
        "it first, or mount the bucket"
    )


def path_problem(path: str) -> str:
    """Why a text is not the path of a file or folder, also as `url_problem`."""
    try:
        os.stat(os.path.expanduser(path))
    except OSError as error:
        if error.errno == errno.ELOOP:
            return f"{printable(path, 80)} is a link that leads to itself; name another"
    return url_problem(path)


def name_arguments(
    message: str, first: str, names: Collection[str], prefix: str
) -> str:
    """Writes a prefix before the arguments that a library's error names.

    These are its beginning, where that matches the pattern `first`, and its end after
    "set", as in "root: photos are missing; replace them, or set skip_bad".
    """
    return re.sub(
        rf"\A(?:{first})|(?<=\bset )\w+\Z",
        lambda found: f"{prefix if found[0] in names else ''}{found[0]}",
        message,
    )


def reject_unknown(
    names: Iterable[Any],
    known: Collection[str],
    prefix: str,
    otherwise: str = "remove it",
) -> None:
    """Refuses names that are not known.

    Args:
      names: given names.
      known: names that there are.
      prefix: what errors write before a name.
      otherwise: the hint where no known name is near.

    Raises:
      UserError: for the first unknown name, with the nearest known one.
    """
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {prefix}{close[0]}?" if close else otherwise
            text = printable(str(name), 80)
            raise UserError(f"{prefix}{text} is not a field; {hint}")
