"""PyTorch's state dicts <-> tokret's variables, by the tables of `tensor_names`."""

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flax import traverse_util

from tokret.convert.tensor_names import LAYOUTS, Form, Row
from tokret.errors import UserError

Variable = tuple[str, str]  # (collection, path)

COUNTER = "num_batches_tracked"  # of PyTorch's batch norms; not used here
EVERY_ROW = list(dict.fromkeys(row for rows in LAYOUTS.values() for row in rows))


@functools.cache
def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.escape(template).replace(r"\{\}", r"(\d+)"))


def variable_of(name: str, rows: Sequence[Row] = EVERY_ROW) -> tuple[Variable, Form]:
    """Returns a released tensor's counterpart; KeyError if it has none."""
    for row in rows:
        if match := _pattern(row.released).fullmatch(name):
            return (row.collection, row.path.format(*match.groups())), row.form
    raise KeyError(name)


def released_name(variable: Variable, rows: Sequence[Row]) -> tuple[str, Form]:
    """Returns a variable's name in a layout; KeyError if it has none."""
    collection, path = variable
    for row in rows:
        match = _pattern(row.path).fullmatch(path)
        if match and row.collection == collection:
            return row.released.format(*match.groups()), row.form
    raise KeyError(variable)


def from_released(
    state_dict: Mapping[str, np.ndarray], rows: Sequence[Row] = EVERY_ROW
) -> dict[str, Any]:
    """Turns a released state dict, or a part of one, into variables by collection.

    Args:
      state_dict: tensors by their released names; `num_batches_tracked` are skipped.
      rows: the layout; by default any that has a name.

    Raises:
      UserError: lists the names without a counterpart.
    """
    flat: dict[str, np.ndarray] = {}
    unknown = []
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


def to_released(variables: Mapping[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    """Turns variables, nested dictionaries by collection, into a layout's state dict.

    Raises:
      UserError: lists the variables without a name in it.
    """
    found: dict[str, Any] = {}
    nameless = []
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
