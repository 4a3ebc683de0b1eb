"""Config files: configs/*.py, and changes to them from a command line."""

import dataclasses
import difflib
import importlib
import importlib.util
import inspect
import re
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType, UnionType
from typing import Any, Union, get_args, get_origin

from tokret.arguments import reject_unknown
from tokret.config.parsing import (
    REFERENCE,
    field_types,
    parse,
    plain_type,
    requirement,
    shown,
    variant,
)
from tokret.config.tree import VARIANTS, Config
from tokret.errors import UserError
from tokret.names import printable

FIELD = "--config."  # begins an argument that changes a field
PACKAGED = "tokret.configs"  # where a name without .py is looked up
PARTS = ("base", "heads")  # of packaged configs, which are none themselves
# What ml_collections raises for a value of another type than a field has.
WRONG_TYPE = (
    r"Could not override field '(.+?)'.*?\. (.*) is of original type <class '(.+?)'> "
    r"and cannot be casted to type <class '(.+?)'>"
)
WORDS = {"true": True, "1": True, "false": False, "0": False}


def load_config(file: str, overrides: Sequence[str] = ()) -> Config:
    """Loads a config file.

    Args:
      file: FILE.py, or the name of a packaged config such as demo; what follows a
        colon is the argument of its `get_config`.
      overrides: changes to it, as --config.FIELD=VALUE.

    Raises:
      UserError: for a mistake in the file, with its line, or in a field.
    """
    name, _, argument = file.partition(":")
    tree = _call(_load_module(name), name, argument)
    # Names of datasets, heads and optimisers first: they decide which fields exist.
    fields = map(split_override, overrides)
    deciding = {f"{group}.{key}" for group, (key, _) in VARIANTS.items()}
    chosen = _choices(tree)
    changed = set()
    for path, value in sorted(fields, key=lambda it: it[0] not in deciding):
        _change(tree, path, value)
        changed.add(path)
    try:
        return parse(tree)
    except UserError as error:
        message = _with_line(str(error), name, changed)
        hint = _why_it_does_not_fit(str(error), name, chosen, _choices(tree), changed)
        raise UserError(message + hint + _shorter_warmup(str(error))) from error


def _choices(tree: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields that decide which fields exist, such as the head, by group."""
    groups = {group: (tree.get(group), key) for group, (key, _) in VARIANTS.items()}
    return {
        group: fields.get(key)
        for group, (fields, key) in groups.items()
        if isinstance(fields, dict)
    }


def _why_it_does_not_fit(
    message: str,
    name: str,
    before: dict[str, Any],
    now: dict[str, Any],
    changed: set[str],
) -> str:
    """Explains errors on fields of a group that an override has made another kind."""
    field = re.match(r"config\.((\w+)\.\w+) is (not a field|missing)", message)
    group = field[2] if field else ""
    if field is None or field[1] in changed or before.get(group) == now.get(group):
        return ""
    other = f"{name}:{now[group]}" if group == "model" else f"a config of {now[group]}"
    return (
        f"; {name} has the fields of {before.get(group)}, not of {now[group]}: "
        f"use {other}"
    )


def _shorter_warmup(message: str) -> str:
    """Returns what to add where the warm-up is not shorter than the epochs."""
    found = re.fullmatch(
        r"config\.schedule\.warmup_epochs is .* less than epochs, (\d+)", message
    )
    if found is None:
        return ""
    shorter = int(found[1]) - 1 or 0.5
    return f": add {FIELD}schedule.warmup_epochs={shorter}, or raise epochs"


def split_override(text: str) -> tuple[str, str]:
    """Splits --config.FIELD=VALUE into FIELD and VALUE.

    Raises:
      UserError: if there is no value.
    """
    path, equals, value = text.removeprefix(FIELD).partition("=")
    if not equals:
        raise UserError(f"{FIELD}{path} needs a value: {FIELD}{path}=VALUE")
    return path, value


def _load_module(name: str) -> ModuleType:
    """Imports a config file by its path, or a packaged one by its name."""
    if not name.endswith(".py"):
        names = _packaged()
        if name not in names:
            raise UserError(
                f"config: {name!r} is neither FILE.py nor one of: {', '.join(names)}"
            )
        return _guard(name, lambda: importlib.import_module(f"{PACKAGED}.{name}"))
    path = Path(name).expanduser()
    if not path.is_file():
        raise UserError(f"config: {name} is not a file{_did_you_mean(path)}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module, execute = importlib.util.module_from_spec(spec), spec.loader.exec_module
    _guard(name, lambda: execute(module))
    return module


def _packaged() -> list[str]:
    """Lists the names of the packaged configs."""
    folder = Path(str(importlib.import_module(PACKAGED).__file__)).parent
    names = {path.stem for path in folder.glob("*.py") if path.stem[0] != "_"}
    return sorted(names.difference(PARTS))


def _did_you_mean(path: Path) -> str:
    """Names the config of the nearest name: beside it, in configs, or packaged."""
    known = {name: name for name in _packaged()}
    for folder in (Path("configs"), path.parent):
        files = (file for file in folder.glob("*.py") if file.stem not in PARTS)
        known |= {file.stem: str(file) for file in files}
    close = difflib.get_close_matches(path.stem, known, 1)
    return f"; did you mean {printable(known[close[0]])}?" if close else ""


def _call(module: ModuleType, name: str, argument: str) -> dict[str, Any]:
    """Calls a module's `get_config` and returns its fields as dictionaries."""
    get_config = getattr(module, "get_config", None)
    if not callable(get_config):
        raise UserError(f"config: {name} has no function get_config")
    given = (argument,) if argument else ()
    try:
        inspect.signature(get_config).bind(*given)
    except TypeError:
        takes = "takes no argument" if given else "needs an argument"
        raise UserError(f"config: {name} {takes} after a colon") from None
    config = _guard(name, lambda: get_config(*given))
    tree = None
    if callable(getattr(config, "to_dict", None)):
        tree = _guard(name, config.to_dict)
    if not isinstance(tree, dict):
        code = getattr(get_config, "__code__", None)
        place = f"{name}, line {code.co_firstlineno}" if code else name
        kind = type(config).__name__
        raise UserError(
            f"config: {place}: get_config returns {kind}; it must return a ConfigDict"
        )
    return tree


def _guard(name: str, function: Callable[[], Any]) -> Any:
    """Calls what a config file does; any failure is a line with its place."""
    try:
        return function()
    except UserError:
        raise
    except SyntaxError as error:
        # A file with null bytes has neither name nor line.
        place = f"{error.filename or name}, line {error.lineno or 1}"
        raise UserError(f"config: {place}: {error.msg}") from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # also SystemExit
        frames = traceback.extract_tb(error.__traceback__)
        own = [f for f in frames if Path(f.filename).stem == Path(name).stem]
        frame = (own or frames)[-1]
        raise UserError(
            f"config: {frame.filename}, line {frame.lineno}: {_reason(error)}"
        ) from error


def _reason(error: BaseException) -> str:
    """Returns an error's kind and message; ml_collections' own in words of a config."""
    inner = error
    while inner.args and isinstance(inner.args[0], Exception):
        inner = inner.args[0]
    # A KeyError's text is the representation of its argument.
    quoted = isinstance(inner, KeyError) and len(inner.args) == 1
    text = str(inner.args[0] if quoted else inner)
    wrong = re.fullmatch(WRONG_TYPE, text, re.S)
    if wrong:
        field, value, given, needed = wrong.groups()
        needed = needed.rpartition(".")[2]
        return f"{field} is {value:.80} ({given}); it must be of type {needed}"
    if inner is not error:
        text = f"no field {text}".replace("\nDid", "; did")
    elif quoted and not re.search(r"\W", text):
        text = repr(text)
    message = " ".join(text.split())
    return (
        f"{type(error).__name__}: {message:.300}" if message else type(error).__name__
    )


def _with_line(message: str, name: str, changed: set[str]) -> str:
    """Adds the config file of an error, and the line that assigns its field, if any."""
    field = re.match(r"config\.([\w.]+)", message)
    path = Path(name).expanduser()
    # An error on several fields may be due to one of the command line.
    due = any(re.search(rf"(?<![\w.]){re.escape(it)}\b", message) for it in changed)
    if field is None or field[1] in changed or due or not path.is_file():
        return message
    pattern = re.compile(rf"\.{re.escape(field[1])}\s*=[^=]")
    lines = path.read_text(errors="replace").splitlines()
    found = [n for n, line in enumerate(lines, 1) if pattern.search(line)]
    return f"{name}, line {found[-1]}: {message}" if found else f"{name}: {message}"


def _change(tree: dict[str, Any], path: str, value: str) -> None:
    """Sets a field to a value from the command line, converted to the field's type."""
    *groups, name = path.split(".")
    prefix, kind, fields = "config.", Config, tree
    for group in groups:
        hint = _field_type(kind, group, prefix)
        if fields is tree and group in VARIANTS:
            fields = fields.setdefault(group, {})
            if name == VARIANTS[group][0]:  # the choice is checked with the group
                fields[name] = value
                return
            hint = variant(group, fields, f"config.{group}")
        elif dataclasses.is_dataclass(hint):
            fields = fields.setdefault(group, {})
        else:
            raise UserError(f"{prefix}{group} is not a group of fields")
        prefix, kind = f"{prefix}{group}.", hint
    fields[name] = read_value(_field_type(kind, name, prefix), value, f"{prefix}{name}")


def _field_type(kind: Any, name: str, prefix: str) -> Any:
    reject_unknown([name], field_types(kind), prefix, REFERENCE)
    return field_types(kind)[name]


def read_value(hint: Any, text: str, path: str) -> Any:
    """Converts text to the type of a field, or raises a UserError."""
    kind, _ = plain_type(hint)
    if dataclasses.is_dataclass(kind) or get_origin(kind) in (Union, UnionType):
        raise UserError(f"{path} is a group of fields; name one of them")
    try:
        if kind is bool:
            return WORDS[text.lower()]
        if kind in (int, float):
            return kind(text)
        if get_origin(kind) is tuple:
            match = re.fullmatch(
                r"\(([^()]*)\)|\[([^\[\]]*)\]|([^()\[\]]*)", text.strip()
            )
            if match is None:
                raise ValueError
            words = (match[1] or match[2] or match[3] or "").split(",")
            number, _ = plain_type(get_args(kind)[0])
            return tuple(number(word) for word in words if word.strip())
    except (ValueError, KeyError):
        raise UserError(
            f"{path} is {shown(text)}; it must be {requirement(hint)}"
        ) from None
    return text
