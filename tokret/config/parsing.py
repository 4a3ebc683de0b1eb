"""Nested dictionaries <-> the typed config, strictly; errors name the field."""

import contextlib
import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from types import UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    TypeGuard,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec
from msgspec import Meta

from tokret.arguments import name_arguments, reject_unknown, url_problem
from tokret.config.annotations import FINITE, takes_urls
from tokret.config.datasets import DataConfig
from tokret.config.tree import VARIANTS, Config, InferenceConfig, ModelConfig
from tokret.errors import UserError
from tokret.io.remote.urls import check_url, is_url
from tokret.names import printable

Kind = TypeVar("Kind")
REFERENCE = "docs/config.md lists all fields"


def parse(tree: Any) -> Config:
    """Checks the config of a training run, a ConfigDict or JSON object.

    Raises:
      UserError: names the first field that is unknown, missing or wrong.
    """
    config = parse_group(Config, tree, "config")
    _check_urls(config, "config")
    return config


def _check_urls(group: Any, path: str) -> None:
    """Checks the URLs of a config that is to be used; a stored one may have any."""
    for name, hint in field_types(type(group)).items():
        value, field = getattr(group, name), f"{path}.{name}" if path else name
        if _is_group(type(value)):
            _check_urls(value, field)
        elif takes_urls(plain_type(hint)[1]):
            if is_url(value):
                check_url(value, field)
            elif problem := url_problem(value):  # gs:/bucket
                raise UserError(f"{field}: {problem}")


def parse_saved(tree: Any) -> InferenceConfig:
    """Checks a stored config: a `Config`, or of a converted model only its part.

    Raises:
      UserError: names the first field that is unknown, missing or wrong.
    """
    is_run = not isinstance(tree, Mapping) or "optimiser" in tree
    return parse_group(Config if is_run else InferenceConfig, tree, "config")


def parse_group(kind: type[Kind], fields: Any, path: str = "") -> Kind:
    """Checks a group of fields and makes its dataclass; errors begin with `path`.

    Raises:
      UserError: names the first field that is unknown, missing or wrong.
    """
    if not isinstance(fields, Mapping):
        raise UserError(f"{path} is {shown(fields)}; it must be a group of fields")
    prefix = f"{path}." if path else ""
    hints = field_types(kind)
    reject_unknown(fields, hints, prefix, REFERENCE)
    values = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        name, hint = field.name, hints[field.name]
        if name in fields:
            values[name] = _parse_field(name, hint, fields[name], f"{prefix}{name}")
        elif field.default is dataclasses.MISSING:
            raise UserError(f"{prefix}{name} is missing; {REFERENCE}")
    try:
        return kind(**values)
    except UserError as error:  # of several fields together
        raise UserError(f"{prefix}{error}") from error


def _parse_field(name: str, hint: Any, value: Any, path: str) -> Any:
    if path == f"config.{name}" and name in VARIANTS:
        return parse_group(variant(name, value, path), value, path)
    if hint is InferenceConfig:
        return parse_saved(value)
    groups = [kind for kind in (hint, *get_args(hint)) if _is_group(kind)]
    if groups and (value is not None or groups == [hint]):
        return parse_group(groups[0], value, path)
    if isinstance(value, str) and re.search("[\ud800-\udfff]", value):
        raise UserError(f"{path} is {shown(value)}, which is no valid text")
    if isinstance(value, str) and not takes_urls(plain_type(hint)[1]):
        if problem := url_problem(value):
            raise UserError(f"{path}: {problem}")
    try:
        return msgspec.convert(value, hint)
    except msgspec.ValidationError:
        raise UserError(
            f"{path} is {shown(value)}; it must be {requirement(hint, value)}"
        ) from None


@contextlib.contextmanager
def naming(path: str, kind: type[Any]) -> Iterator[None]:
    """Names fields of a group, such as config.data, in errors on arguments."""
    try:
        yield
    except UserError as error:
        named = name_arguments(str(error), r"\w+", field_types(kind), f"{path}.")
        if named != str(error):
            raise type(error)(named) from error
        raise


def _is_group(kind: Any) -> TypeGuard[type[Any]]:
    return isinstance(kind, type) and dataclasses.is_dataclass(kind)


def parse_data(fields: Any, path: str = "") -> DataConfig:
    """Checks the group `data`, as `parse_group` does, and its URLs."""
    config: DataConfig = parse_group(variant("data", fields, path), fields, path)
    _check_urls(config, path)
    return config


def parse_model(fields: Any, path: str = "") -> ModelConfig:
    """Checks the group `model`, as `parse_group` does."""
    return parse_group(variant("model", fields, path), fields, path)


def variant(group: str, fields: Any, path: str) -> type[Any]:
    """Returns the dataclass of a group in `VARIANTS`, by the field that decides it.

    Raises:
      UserError: if that field is missing, or not one of the choices.
    """
    key, kinds = VARIANTS[group]
    if not isinstance(fields, Mapping):
        raise UserError(f"{path} is {shown(fields)}; it must be a group of fields")
    field = f"{path}.{key}" if path else key
    if key not in fields:
        raise UserError(f"{field} is missing; {REFERENCE}")
    value = fields[key]
    if not isinstance(value, str) or value not in kinds:
        choices = ", ".join(sorted(kinds))
        raise UserError(f"{field} is {shown(value)}; it must be one of: {choices}")
    return kinds[value]


def field_types(kind: Any) -> dict[str, Any]:
    """Returns the types of a dataclass's fields, annotated as `annotations` has it."""
    hints = get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        if "meta" in field.metadata:
            hints[field.name] = Annotated[hints[field.name], field.metadata["meta"]]
    return hints


def plain_type(hint: Any) -> tuple[Any, Meta | None]:
    """Returns a field's type without its annotation, and the annotation."""
    meta = next((arg for arg in get_args(hint)[1:] if isinstance(arg, Meta)), None)
    return (get_args(hint)[0], meta) if meta else (hint, None)


def shown(value: Any) -> str:
    """Returns a value of any type as an error shows it: short, in one line."""
    try:
        return printable(repr(value), 200)
    except (ValueError, RecursionError):  # of too many digits, or in itself
        return f"a {type(value).__name__} without end"


def requirement(hint: Any, value: Any = None) -> str:
    """Returns in words what a field must be; of a value of its type, the range."""
    kind, meta = plain_type(hint)
    origin = get_origin(kind)
    if origin is Literal:
        return f"one of: {', '.join(choice or repr('') for choice in get_args(kind))}"
    if origin is tuple:
        one = plain_type(get_args(kind)[0])[0](1)
        return f"numbers {requirement(get_args(kind)[0], one)}, such as ({one},)"
    if origin in (Union, UnionType) or origin is dict:
        return f"of type {kind}"
    right = int | float if kind is float else int
    is_right = isinstance(value, right) and not isinstance(value, bool)
    if meta is None or kind not in (int, float) or not is_right:
        return f"of type {kind.__name__}"
    return number_range(meta, isinstance(value, int) or math.isfinite(value))


def number_range(meta: Meta, finite: bool = True) -> str:
    """Returns in words the range of a number."""
    least = f"{meta.ge:g}"
    if meta.lt is not None:
        return f"in [{least}, {meta.lt:g})"
    if meta.le is None or meta.le == FINITE:
        return f"at least {least}" + ("" if finite else " and finite")
    most = meta.le if isinstance(meta.le, int) else f"{meta.le:g}"
    return f"in [{least}, {most}]"


def to_tree(config: Any) -> dict[str, Any]:
    """Returns a config, or a group, as nested dictionaries of JSON types."""
    tree: dict[str, Any] = msgspec.to_builtins(config)
    return tree
