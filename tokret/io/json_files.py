"""JSON files that are read into a type, strictly."""

from pathlib import Path
from typing import TypeVar

import msgspec

from tokret.errors import UserError

MAX_BYTES = 2**31
T = TypeVar("T")


def read_json(path: Path, kind: type[T], remedy: str) -> T:
    """Reads a JSON file into a type, such as a `msgspec.Struct`.

    Args:
      path: the file.
      kind: the type of its content; nothing is converted.
      remedy: what to do about a damaged file, such as "remove it and extract again".

    Raises:
      UserError: the file cannot be read, is larger than 2 GiB, or has other content.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path}: damaged (larger than 2 GiB): {remedy}")
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise UserError(
            f"{path}: damaged, or of another version of tokret ({error}): {remedy}"
        ) from error
