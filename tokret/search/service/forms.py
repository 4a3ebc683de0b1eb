"""Forms and queries of URLs -> structs of `answers`; errors name the field."""

import re
from collections.abc import Collection, Sequence
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from starlette.datastructures import QueryParams

from tokret.search.service.form_parts import Part
from tokret.search.service.problems import Problem

Form = TypeVar("Form", bound=msgspec.Struct)


def parse_parts(
    parts: Sequence[Part], kind: type[Form], files: Collection[str]
) -> tuple[Form, list[Part]]:
    """Separates the files of a form from its fields.

    Args:
      parts: of the form.
      kind: of the fields.
      files: the names of the fields that are files.

    Raises:
      Problem: 400 for an unknown field, a value out of range, or a missing file.
    """
    fields, found = [], []
    for part in parts:
        if part.field not in files:
            fields.append((part.field, part.text))
        elif part.filename is None:
            raise Problem(400, f"{part.field} must be a file", part.field)
        elif not part.content:
            raise Problem(400, f"{part.field} is empty", part.field)
        else:
            found.append(part)
    return parse_fields(fields, kind), found


def parse_query(query: QueryParams, kind: type[Form]) -> Form:
    """Parses the query of a URL; problems as of `parse_parts`."""
    return parse_fields(query.multi_items(), kind)


def parse_fields(fields: Sequence[tuple[str, str]], kind: type[Form]) -> Form:
    """Parses texts; a field of a list may occur several times."""
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for name, text in fields:
        if name not in hints:
            raise Problem(400, f"{name} is not a field of this request", name)
        if get_origin(hints[name]) is list:
            values.setdefault(name, []).append(text)
        elif name in values:
            raise Problem(400, f"{name} occurs more than once", name)
        else:
            values[name] = text
    for name in list(values):  # empty: as if it was not given
        if values[name] == "" and type(None) in get_args(hints[name]):
            del values[name]
    try:
        return msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        words, _, place = str(error).partition(" - at `$.")
        field = (re.match(r"\w+", place) or [""])[0]
        raise Problem(400, f"{field}: {words}", field) from error
