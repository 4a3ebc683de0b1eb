"""Configs as plain nested dictionaries: bound to functions, saved, compared.

A group of fields is the keyword arguments of one function or class, so a field that
nothing reads and a field that is missing cannot exist: both are errors that name it.
"""

import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from tokret.arguments import reject_unknown
from tokret.errors import UserError
from tokret.io.atomic_files import write_whole

Config = dict[str, Any]
Result = TypeVar("Result")


def call(
    function: Callable[..., Result], group: str, fields: Mapping[str, Any], **given: Any
) -> Result:
    """Calls a function with a group's fields, each of which must be an argument of it.

    Args:
      function: called with the fields and `given`, by keyword.
      group: the group's name in the config, for errors.
      fields: the group's fields.
      **given: arguments that do not come from the config.

    Raises:
      UserError: for a field that the function does not take, or lacks.
    """
    parameters = inspect.signature(function).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if not takes_any:
        reject_unknown(fields, set(parameters) - set(given), f"config.{group}.")
    for name, parameter in parameters.items():
        _check_type(f"config.{group}.{name}", fields.get(name), parameter.annotation)
        is_optional = parameter.default is not parameter.empty or parameter.kind in (
            parameter.VAR_KEYWORD,
            parameter.VAR_POSITIONAL,
        )
        if not is_optional and name not in given and name not in fields:
            raise UserError(f"config.{group}.{name} is missing; configs/base.py has it")
    return function(**fields, **given)


def part(config: Config, name: str, kind: type[Result]) -> Result:
    """Returns a group or a field of a config.

    Raises:
      UserError: if it is missing, or not of this kind.
    """
    value = config.get(name)
    if not isinstance(value, kind):
        raise UserError(
            f"config.{name} is {'missing' if value is None else repr(value)}; it must "
            f"be {'a group of fields' if kind is dict else f'of type {kind.__name__}'}"
        )
    return value


def _check_type(field: str, value: Any, kind: Any) -> None:
    """Refuses a value that is not of a plain annotated type; an int may be a float."""
    if value is None or kind not in (bool, int, float, str):
        return
    right = (int, float) if kind is float else kind
    is_bool = isinstance(value, bool)
    if not isinstance(value, right) or is_bool != (kind is bool):
        raise UserError(f"{field} is {value!r}; it must be of type {kind.__name__}")


def save(config: Config, path: Path) -> None:
    """Writes a config as JSON, whole or not at all.

    Raises:
      UserError: if it cannot be written.
    """
    text = json.dumps(config, indent=2) + "\n"
    write_whole(path, text, path.with_suffix(".partial"))


def load(path: Path) -> Config:
    """Reads a config that `save` wrote.

    Raises:
      UserError: if the file is missing or is not such a config.
    """
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise UserError(
            f"{path} does not exist; is {path.parent} the --workdir of a training?"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as a config: {error}") from error
    if not isinstance(config, dict):
        raise UserError(f"{path} is not a config: its top level is not an object")
    return config


def differences(ours: Config, theirs: Config, prefix: str = "config.") -> list[str]:
    """Lists the fields in which two configs differ, as `field: theirs -> ours`."""
    found = []
    for name in sorted(set(ours) | set(theirs)):
        a, b = ours.get(name), theirs.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{prefix}{name}.")
        elif a != b:
            found.append(f"{prefix}{name}: {b!r} -> {a!r}")
    return found


def settle(
    config: Config,
    path: Path,
    machine_groups: tuple[str, ...],
    recorded: Config | None = None,
) -> None:
    """Saves the config of a new run; checks that of one that goes on.

    Args:
      config: the config of this start; JSON types only.
      path: where the run's config lies.
      machine_groups: groups that may change between starts, since they do not change
        what is learned.
      recorded: the config of a run that lost this file; None for a new one.

    Raises:
      UserError: if the run was started with another config; it names the fields.
    """
    begun = load(path) if path.exists() else recorded
    if begun is not None:
        before = {k: v for k, v in begun.items() if k not in machine_groups}
        now = {k: v for k, v in config.items() if k not in machine_groups}
        found = differences(now, before)
        if found:
            raise UserError(
                f"{path.parent} belongs to a run with another config "
                f"({'; '.join(found)}); choose another --workdir, or the same fields"
            )
    save(config, path)
