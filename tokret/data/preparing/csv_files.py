"""CSV files and lists, row by row; errors name the file and the line."""

import contextlib
import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tokret.errors import UserError
from tokret.io.atomic_files import replacing
from tokret.io.regular_files import open_file
from tokret.names import SPACES

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
      UserError: if the file cannot be read, the heading or a row lacks a column, or a
        row has values beyond the heading's columns.
    """
    csv.field_size_limit(MAX_FIELD)
    with _open_text(path) as file:
        reader = csv.reader(file)
        try:
            heading = [name.strip(SPACES) for name in next(reader, [])]
            needed = [_index(heading, name, path) for name in columns]
            others = [_index(heading, name, path, True) for name in optional]
            for row in reader:
                if not row:
                    continue  # an empty line
                row = [value.strip(SPACES) for value in row]
                _check_length(row, len(heading), max(needed), path, reader.line_num)
                values = [row[i] if 0 <= i < len(row) else "" for i in needed + others]
                yield reader.line_num, values
        except csv.Error as error:
            raise line_error(path, reader.line_num, str(error)) from error


@contextlib.contextmanager
def _open_text(path: Path) -> Iterator[io.TextIOWrapper]:
    """Opens a text file in UTF-8, its line ends as they are."""
    with open_file(path) as raw:
        try:
            yield io.TextIOWrapper(raw, "utf-8-sig", newline="")
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is not UTF-8 text ({error.reason})") from error


def _index(
    heading: Sequence[str], name: str, path: Path, optional: bool = False
) -> int:
    """A column's number; -1 for an optional one that is missing."""
    if name not in heading and optional:
        return -1
    if heading.count(name) != 1:
        have = ", ".join(heading)[:100]
        count = "two columns" if name in heading else "no column"
        raise UserError(
            f"{path} has {count} {name!r} in its first line, which has {have!r}"
        )
    return heading.index(name)


def _check_length(
    row: Sequence[str], columns: int, last: int, path: Path, line: int
) -> None:
    """Refuses a row that ends before its last needed value, or has too many values."""
    words = f"has {len(row)} fields, the heading {columns}"
    if len(row) <= last:
        raise line_error(path, line, words)
    if any(row[columns:]):
        raise line_error(path, line, f"{words}; quote values that contain a comma")


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Reads a text file's lines, stripped; empty ones are skipped.

    Yields:
      The line's number, from 1, and the line.

    Raises:
      UserError: if the file cannot be read, or is not text.
    """
    with _open_text(path) as file:
        lines = iter(lambda: file.readline(MAX_FIELD), "")
        for number, text in enumerate(lines, start=1):
            if len(text) == MAX_FIELD:
                raise line_error(path, number, f"has more than {MAX_FIELD} characters")
            if line := text.strip(SPACES):
                yield number, line


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
    """Writes a CSV, whole or not at all; names that are not valid text are escaped.

    Raises:
      UserError: if it cannot be written.
    """
    with (
        replacing(path) as draft,
        draft.open(
            "w", newline="", encoding="utf-8", errors="backslashreplace"
        ) as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(heading)
        writer.writerows(rows)
