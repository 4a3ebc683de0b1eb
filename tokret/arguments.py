"""Checks of arguments: names in a table, numbers in a range."""

import difflib
import math
from collections.abc import Mapping
from typing import Any, TypeVar

from tokret.errors import UserError

Number = TypeVar("Number", int, float)


def choose(table: Mapping[str, Any], name: str, field: str) -> Any:
    """Looks a name up in a table of choices.

    Raises:
      UserError: if there is no such name; it lists those there are.
    """
    if not isinstance(name, str) or name not in table:
        names = ", ".join(sorted(table))
        raise UserError(f"{field} is {name!r}; it must be one of: {names}")
    return table[name]


def within(
    field: str, value: Number, least: int | float, most: int | float = math.inf
) -> Number:
    """Returns a number that lies in [least, most], which NaN does not.

    Raises:
      UserError: if it does not.
    """
    if not least <= value <= most:
        limits = f"at least {least}" if most == math.inf else f"in [{least}, {most}]"
        raise UserError(f"config.{field} is {value}; it must be {limits}")
    return value


def reject_unknown(fields: Mapping[str, Any], known: set[str], prefix: str) -> None:
    """Refuses names that nothing reads, with the nearest known name as a hint.

    Raises:
      UserError: if there are such names.
    """
    for name in fields:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {prefix}{near[0]}?" if near else "remove it"
            raise UserError(f"{prefix}{name} is a field that nothing reads; {hint}")
