"""CSV files and lists, row by row; errors name the file and the line."""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tokret.errors import UserError

# Some landmarks have ten thousand photos in one field; after a quote that is never
# closed the rest of the file would be one field.
MAX_FIELD = 2**24


def read_rows(
    path: Path, columns: Sequence[str], optional: Sequence[str] = ()
) -> Iterator[tuple[int, list[str]]]:
    """Reads some columns of a CSV with a heading.

    Args:
      path: in UTF-8, with or without a byte order mark, with any line ends.
      columns: names of the columns, in the order of the values.
      optional: names of further columns; "" is the value where the column is missing
        or a row ends before it.

    Yields:
      The number of the row's last line, from 1, and the columns' values, stripped.

    Raises:
      UserError: if the file cannot be read, or the heading or a row lacks a column.
    """
    csv.field_size_limit(MAX_FIELD)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            heading = [name.strip() for name in next(reader, [])]
            needed = [_index(heading, name, path) for name in columns]
            others = [heading.index(n) if n in heading else -1 for n in optional]
            for row in reader:
                if not row:
                    continue  # an empty line
                if len(row) <= max(needed):
                    words = f"has {len(row)} fields, the heading {len(heading)}"
                    raise line_error(path, reader.line_num, words)
                values = [row[i] if 0 <= i < len(row) else "" for i in needed + others]
                yield reader.line_num, [value.strip() for value in values]
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error.reason})") from error
    except csv.Error as error:
        raise line_error(path, reader.line_num, str(error)) from error


def _index(heading: Sequence[str], name: str, path: Path) -> int:
    if name not in heading:
        have = ", ".join(heading)[:100]
        raise UserError(
            f"{path} has no column {name!r} in its first line, which has {have!r}"
        )
    return heading.index(name)


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Reads a text file's lines, stripped; empty ones are skipped.

    Yields:
      The line's number, from 1, and the line.

    Raises:
      UserError: if the file cannot be read, or is not text.
    """
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error.reason})") from error
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line.strip()


def line_error(path: Path, line: int, problem: str) -> UserError:
    """An error that names a line of a file."""
    return UserError(f"{path}, line {line}: {problem}")


def add_unique(lines: dict[str, int], entry: str, path: Path, line: int) -> None:
    """Notes the line of an entry that a file may contain once.

    Raises:
      UserError: if an earlier line has it.
    """
    if entry in lines:
        raise line_error(path, line, f"{entry[:80]} is in line {lines[entry]} too")
    lines[entry] = line


def parse_number(text: str, path: Path, line: int, column: str) -> int:
    """Reads a number of at most nine digits, from 0.

    Raises:
      UserError: if it is not one.
    """
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise line_error(path, line, f"{column} is {text[:40]!r}, which is no number")
    return int(text)


def write_rows(
    path: Path, heading: Sequence[str], rows: Iterable[Sequence[object]]
) -> None:
    """Writes a CSV, whole or not at all; names that are not valid text are escaped."""
    partial = path.with_name(path.name + ".tmp")
    with partial.open(
        "w", newline="", encoding="utf-8", errors="backslashreplace"
    ) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(heading)
        writer.writerows(rows)
    partial.replace(path)
