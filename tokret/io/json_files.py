"""JSON files that are read into a type, strictly."""

from pathlib import Path
from typing import Any

import msgspec

from tokret.io.regular_files import parsing, read_file


def read_json(path: Path, kind: Any, remedy: str, max_bytes: int) -> Any:
    """Reads a JSON file into a type, such as a `msgspec.Struct`.

    Args:
      path: the file.
      kind: the type of its content and of the result; nothing is converted.
      remedy: what to do about a damaged file, such as "remove it and extract again".
      max_bytes: the most that it may have.

    Raises:
      UserError: the file cannot be read, is larger, or has other content.
    """
    content = read_file(path, max_bytes)
    with parsing(path, remedy):
        return msgspec.json.decode(content, type=kind)
