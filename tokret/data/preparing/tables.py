"""CSV files from elsewhere, row by row: every mistake is named with file and line."""

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from tokret.errors import UserError

# Some landmarks have ten thousand photos in one field; a quote that is never closed
# would take the whole file for one.
MOST_FIELD = 2**24


def rows(
    path: Path, columns: Sequence[str], optional: Sequence[str] = ()
) -> Iterator[tuple[int, list[str]]]:
    """Reads some columns of a CSV with a heading.

    Args:
      path: in UTF-8, with or without a byte order mark, lines ending in any way.
      columns: names of those wanted, in the order they are wanted.
      optional: names of further columns; where there is none of a name, or a row ends
        before it, "" stands for its value.

    Yields:
      The number of the row's last line, from 1, and the columns' values, stripped.

    Raises:
      UserError: if the file cannot be read, lacks a column, or a row of it does.
    """
    csv.field_size_limit(MOST_FIELD)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            heading = [name.strip() for name in next(reader, [])]
            places = [_place(heading, name, path) for name in columns]
            most = max(places)
            others = [heading.index(n) if n in heading else -1 for n in optional]
            for row in reader:
                if not row:
                    continue  # an empty line
                if len(row) <= most:
                    raise problem(
                        path,
                        reader.line_num,
                        f"has {len(row)} fields, the heading {len(heading)}",
                    )
                further = [
                    row[place] if 0 <= place < len(row) else "" for place in others
                ]
                values = [*(row[place] for place in places), *further]
                yield reader.line_num, [value.strip() for value in values]
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error.reason})") from error
    except csv.Error as error:
        raise problem(path, reader.line_num, str(error)) from error


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Reads a text file's lines, stripped; empty ones are passed over.

    Yields:
      The line's number, from 1, and the line.

    Raises:
      UserError: if the file cannot be read, or is no text.
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


def _place(heading: Sequence[str], name: str, path: Path) -> int:
    if name not in heading:
        have = ", ".join(heading)[:100]
        raise UserError(
            f"{path} has no column {name!r} in its first line, which has {have!r}"
        )
    return heading.index(name)


def problem(path: Path, line: int, words: str) -> UserError:
    """An error that names a line of a file."""
    return UserError(f"{path}, line {line}: {words}")


def number(text: str, path: Path, line: int, column: str) -> int:
    """Reads a number of at most nine digits, from 0.

    Raises:
      UserError: if it is none.
    """
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise problem(path, line, f"{column} is {text[:40]!r}, which is no number")
    return int(text)
