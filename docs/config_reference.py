"""docs/config.md: all fields of the config, from their dataclasses.

python -m docs.config_reference > docs/config.md
"""

import dataclasses
import inspect
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from tokret.config.parsing import field_types, number_range, plain_type
from tokret.config.tree import VARIANTS, Config

HEADER = """\
# Fields of the config

`configs/*.py` assign them, and `--config.FIELD=VALUE` of `tokret train` changes one. A
field with a default may be omitted. `run` and `mesh` may change when a run resumes.

This page is generated: `python -m docs.config_reference > docs/config.md`.
"""
TABLE = "| field | type | values | default | meaning |\n| --- | --- | --- | --- | --- |"


def write_reference() -> str:
    """Returns docs/config.md."""
    hints = field_types(Config)
    groups = {name: hint for name, hint in hints.items() if _is_group(name, hint)}
    scalars = [
        field
        for field in dataclasses.fields(Config)
        if field.name not in groups and field.name != "dataset"
    ]
    sections = [HEADER, "## config\n", TABLE, *_rows(Config, scalars)]
    for name, hint in groups.items():
        sections += ["", f"## config.{name}", ""]
        sections += _variants(name) if name in VARIANTS else [*_section(hint)]
    return "\n".join(sections) + "\n"


def _is_group(name: str, hint: Any) -> bool:
    return name in VARIANTS or dataclasses.is_dataclass(hint)


def _section(kind: type[Any]) -> Iterator[str]:
    yield f"{inspect.getdoc(kind)}\n"
    yield TABLE
    yield from _rows(kind, dataclasses.fields(kind))


def _variants(group: str) -> list[str]:
    """Returns the fields common to all classes of a group, then those of each."""
    key, kinds = VARIANTS[group]
    classes = list(dict.fromkeys(kinds.values()))
    common = set.intersection(*({f.name for f in _fields(kind)} for kind in classes))
    common -= {key}
    lines = [f"`{key}` is one of {_code(sorted(kinds))} and decides the other fields."]
    if common:
        fields = [field for field in _fields(classes[0]) if field.name in common]
        lines += ["", TABLE, *_rows(classes[0], fields)]
    for kind in classes:
        names = _code(sorted(name for name, each in kinds.items() if each is kind))
        lines += ["", f"### {key}: {names}", "", f"{inspect.getdoc(kind)}"]
        own = [field for field in _fields(kind) if field.name not in {*common, key}]
        lines += ["", TABLE, *_rows(kind, own)] if own else []
    return lines


def _fields(kind: type[Any]) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(kind)


def _rows(kind: type[Any], fields: Any) -> Iterator[str]:
    for field in fields:
        hint, meta = plain_type(field_types(kind)[field.name])
        missing = field.default is dataclasses.MISSING
        default = "" if missing else f"`{_plain(field.default)!r}`"
        cells = (f"`{field.name}`", _type(hint), _values(hint, meta), default)
        assert meta is not None
        yield f"| {' | '.join(cells)} | {meta.description} |"


def _plain(value: Any) -> Any:
    return tuple(round(v, 4) for v in value) if isinstance(value, tuple) else value


def _type(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "str"
    if get_origin(hint) is tuple:
        return f"{plain_type(get_args(hint)[0])[0].__name__}s"
    return hint.__name__


def _values(hint: Any, meta: Any) -> str:
    if get_origin(hint) is Literal:
        return _code(get_args(hint))
    if get_origin(hint) is tuple:
        return _values(*plain_type(get_args(hint)[0]))
    return number_range(meta) if hint in (int, float) else ""


def _code(names: Any) -> str:
    return ", ".join(f"`{name}`" if name else '`""`' for name in names)


if __name__ == "__main__":
    print(write_reference(), end="")  # noqa: T201
