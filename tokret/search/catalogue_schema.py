"""The file of a catalogue: its tables, the checksum of each row, and how it is opened.

The file may come from anywhere: its schema is compared with ours before anything else
is read, and each row with its CRC-32. It is opened for each use and closed again, which
takes less than a millisecond: a rebuild replaces the file.
"""

import contextlib
import os
import sqlite3
import stat
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from tokret.errors import UserError
from tokret.io import regular_files
from tokret.io.regular_files import parsing

VERSION = 4  # of the tables
APPLICATION = 0x746F6B72  # "tokr"
REMEDY = "index its photos again with rebuild"
JOURNAL_END = bytes.fromhex("d9d505f920a163d7")
MAX_VALUE = 2**24  # bytes of a text or a blob
WAIT = 60.0  # seconds for another process that is reading or committing

# The last column of each table is the CRC-32 of those before it. A digest is a signed
# integer of 64 bits; a modification time is in ns.
TABLES = {
    "meta": (
        "id INTEGER PRIMARY KEY, root TEXT, model TEXT, engines TEXT, token TEXT, "
        "changes INTEGER, crc INTEGER"
    ),
    "parts": "id INTEGER PRIMARY KEY, name TEXT, digests BLOB, live BLOB, crc INTEGER",
    "folders": "id INTEGER PRIMARY KEY, path TEXT, crc INTEGER",
    "photos": (
        "id INTEGER PRIMARY KEY, name TEXT, folder INTEGER, size INTEGER, "
        "modified INTEGER, digest INTEGER, part INTEGER, row INTEGER, error TEXT, "
        "crc INTEGER"
    ),
}
INDEXES = {
    "parts_name": "UNIQUE INDEX {} ON parts(name)",
    "folders_path": "UNIQUE INDEX {} ON folders(path)",
    "photos_name": "UNIQUE INDEX {} ON photos(name)",
    "photos_size": "INDEX {} ON photos(size)",
    "photos_digest": "INDEX {} ON photos(digest)",
    "photos_place": "INDEX {} ON photos(part, row)",
    "photos_folder": "INDEX {} ON photos(folder, part, row)",
}
SCHEMA = {
    **{name: f"CREATE TABLE {name}({columns})" for name, columns in TABLES.items()},
    **{name: f"CREATE {words.format(name)}" for name, words in INDEXES.items()},
}


def checksum(values: Sequence[Any]) -> int:
    """CRC-32 of the values of a row, without its last column."""
    return zlib.crc32(msgspec.msgpack.encode(values))


def checked(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Returns the values of a row without the checksum.

    Raises:
      ValueError: the row has another checksum.
    """
    values = row[:-1]
    if checksum(values) != row[-1]:
        raise ValueError("a row has another checksum")
    return values


def create(path: Path) -> None:
    """Makes a file without rows; one of this name is replaced.

    Raises:
      UserError: it cannot be written.
    """
    remove(path)
    with errors(path), contextlib.closing(_connect(path, "rwc")) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        for words in SCHEMA.values():
            connection.execute(words)
        connection.execute("COMMIT")


def remove(path: Path) -> None:
    """Removes a file that no process uses, and its journal."""
    # The journal of another file would be rolled back into a new one of its name.
    for each in (journal_of(path), path):
        each.unlink(missing_ok=True)


def journal_of(path: Path) -> Path:
    """The journal of a transaction that has not ended; there is none otherwise."""
    return path.with_name(f"{path.name}-journal")


def open_file(path: Path, *, write: bool = False) -> sqlite3.Connection:
    """Opens a file, and checks that its tables are ours.

    What a killed process had not committed is rolled back first.

    Raises:
      UserError: it cannot be read, is damaged, or of another version.
    """
    # Not opened to see this: closing it would release the locks of this process.
    with errors(path):
        mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a special file"
        raise UserError(f"{path}: is {what}, where a file is expected")
    if os.path.lexists(journal_of(path)):
        _check_journal(journal_of(path))
        if not write:
            _roll_back(path)
    with errors(path):
        connection = _connect(path, "rw" if write else "ro")
        try:
            _set_up(connection)
            _check_schema(path, connection)
        except BaseException:
            connection.close()
            raise
    return connection


def _check_journal(journal: Path) -> None:
    """Refuses one that names another file, which SQLite would delete afterwards.

    Those of transactions in several files do, and end with these bytes.
    """
    try:
        with regular_files.open_file(journal) as file, errors(journal):
            file.seek(max(0, os.fstat(file.fileno()).st_size - len(JOURNAL_END)))
            end = file.read(len(JOURNAL_END))
    except UserError:
        if os.path.lexists(journal):  # else its transaction has ended meanwhile
            raise
        return
    if end == JOURNAL_END:
        raise UserError(f"{journal}: tokret did not write it; delete it, and {REMEDY}")


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    url = f"file:{quote(os.fsencode(path.absolute()))}?mode={mode}"
    return sqlite3.connect(
        url, WAIT, isolation_level=None, uri=True, check_same_thread=False
    )


def _set_up(connection: sqlite3.Connection) -> None:
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE)
    for words in (
        "trusted_schema = OFF",
        "cell_size_check = ON",
        "mmap_size = 0",
        # Also the removal of the journal is synchronised: it is the commit.
        "synchronous = EXTRA",
        # A transaction writes to the file when it is committed, not before, so that
        # others can read until then.
        "cache_spill = OFF",
    ):
        connection.execute(f"PRAGMA {words}")


def _roll_back(path: Path) -> None:
    """Rolls back what a killed process left; nothing of a process that is at it."""
    with contextlib.suppress(sqlite3.Error, UserError):
        with contextlib.closing(_connect(path, "rw")) as connection:
            connection.execute("SELECT 1 FROM sqlite_master").fetchone()


def _check_schema(path: Path, connection: sqlite3.Connection) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if application == APPLICATION and version != VERSION:
        raise UserError(
            f"{path} has version {version}, not {VERSION}; another version of tokret "
            f"wrote it: {REMEDY}"
        )
    rows = connection.execute("SELECT name, sql FROM sqlite_master LIMIT 99").fetchall()
    if application != APPLICATION or len(rows) > len(SCHEMA) or dict(rows) != SCHEMA:
        raise ValueError("its tables are not those of a catalogue")


@contextlib.contextmanager
def errors(path: Path) -> Iterator[None]:
    """Turns what SQLite raises into one line, as `regular_files.parsing`.

    Raises:
      UserError: the file is damaged, cannot be read or written, or is in use too long.
    """
    with parsing(path, REMEDY, (sqlite3.Error,)):
        try:
            yield
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from error
        except sqlite3.OperationalError as error:
            problem = _problem(error)
            if problem is None:
                raise
            raise UserError(f"{path}: {problem}") from error


def _problem(error: sqlite3.OperationalError) -> str | None:
    """What is wrong with a file that is not damaged."""
    code = getattr(error, "sqlite_errorcode", 0)
    if code == sqlite3.SQLITE_READONLY_ROLLBACK:
        return (
            "an update of it was interrupted, and it cannot be written here; run a "
            "query where it can"
        )
    return {
        sqlite3.SQLITE_BUSY: f"in use by another process for {WAIT:g} s; try again",
        sqlite3.SQLITE_CANTOPEN: "cannot be opened; see its permissions",
        sqlite3.SQLITE_READONLY: "cannot be written; see its permissions",
        sqlite3.SQLITE_FULL: "cannot be written: no space left on the disk",
        sqlite3.SQLITE_IOERR: "cannot be read or written: the disk failed",
    }.get(code & 0xFF)
