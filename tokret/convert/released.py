"""PyTorch's state dicts <-> tokret's variables, by the tables of `layouts`."""

import functools
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from tokret.convert.layouts import LAYOUTS, Form, Row
from tokret.errors import UserError

Variable = tuple[str, str]  # (collection, path)

COUNTER = "num_batches_tracked"  # of PyTorch's batch norms; not used here
EVERY_ROW = list(dict.fromkeys(row for rows in LAYOUTS.values() for row in rows))


@functools.cache
def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.escape(template).replace(r"\{\}", r"(\d+)"))


def _find(name: str, template: str) -> tuple[str, ...] | None:
    """Returns the numbers in a name, None if the template does not match."""
    match = _pattern(template).fullmatch(name)
    return None if match is None else match.groups()


def variable_of(name: str, rows: Iterable[Row] = EVERY_ROW) -> tuple[Variable, Form]:
    """Returns a released tensor's counterpart.

    Raises:
      KeyError: if it has none.
    """
    for row in rows:
        numbers = _find(name, row.released)
        if numbers is not None:
            return (row.collection, row.path.format(*numbers)), row.form
    raise KeyError(name)


def released_name(variable: Variable, rows: Iterable[Row]) -> tuple[str, Form]:
    """Returns a variable's name in a layout.

    Raises:
      KeyError: if it has none.
    """
    for row in rows:
        if row.collection == variable[0]:
            numbers = _find(variable[1], row.path)
            if numbers is not None:
                return row.released.format(*numbers), row.form
    raise KeyError(variable)


def from_released(
    state_dict: Mapping[str, np.ndarray], rows: Iterable[Row] = EVERY_ROW
) -> dict[str, Any]:
    """Turns a released state dict, or a part of one, into variables.

    Args:
      state_dict: tensors by their released names; `num_batches_tracked` are skipped.
      rows: the layout; by default any that has a name.

    Returns:
      Nested dictionaries by collection.

    Raises:
      UserError: if names have no counterpart; all of them are listed.
    """
    flat: dict[str, np.ndarray] = {}
    unknown = []
    rows = list(rows)
    for name, tensor in state_dict.items():
        if name.endswith(COUNTER):
            continue
        try:
            variable, form = variable_of(name, rows)
        except KeyError:
            unknown.append(name)
        else:
            flat["/".join(variable)] = form.to_ours(tensor)
    if unknown:
        raise UserError(f"{len(unknown)} tensors are unknown: {', '.join(unknown)}")
    return traverse_util.unflatten_dict(flat, sep="/")


def to_released(variables: Mapping[str, Any], rows: Iterable[Row]) -> dict[str, Any]:
    """Turns variables into a state dict of a layout.

    Args:
      variables: nested dictionaries by collection, of arrays or of anything with their
        methods of transposition.
      rows: the layout.

    Raises:
      UserError: if variables have no name in it; all of them are listed.
    """
    found: dict[str, Any] = {}
    nameless = []
    rows = list(rows)
    for key, leaf in traverse_util.flatten_dict(variables, sep="/").items():
        collection, _, path = key.partition("/")
        try:
            name, form = released_name((collection, path), rows)
        except KeyError:
            nameless.append(path)
        else:
            found[name] = form.to_released(leaf)
    if nameless:
        raise UserError(
            f"{len(nameless)} variables have no released name: {', '.join(nameless)}"
        )
    return found
