"""Digests of a prepared dataset's files, by which other contents are noticed.

They are in the file SHA256SUMS, for each file the two lines

    # BYTES
    SHA-256  NAME

so that `sha256sum -c SHA256SUMS` is the same check without tokret. It protects from
files that are damaged, edited or exchanged, not from somebody who changes it too.
"""

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tokret.errors import UserError
from tokret.io.atomic_files import write_whole
from tokret.io.regular_files import open_file, read_file

FILE = "SHA256SUMS"
LARGEST = 2**22  # bytes; a larger list is not read
REMEDY = "remove this folder, and prepare the dataset again"
_ENTRY = re.compile(r"# ([0-9]{1,15})\n([0-9a-f]{64})  (.+)\n")


class FileDigest(NamedTuple):
    """The size of a file in bytes, and its SHA-256 as hexadecimal digits."""

    nbytes: int
    sha256: str


def digest_file(path: Path) -> FileDigest:
    """Reads a file, and returns its size and its digest.

    Raises:
      UserError: if it is missing, or no regular file.
      OSError: if its disk fails.
    """
    with open_file(path) as file:
        opened: Any = file  # typeshed's BinaryIO lacks readinto
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
        return FileDigest(file.tell(), digest)


def write_digests(folder: Path, known: Mapping[str, FileDigest]) -> None:
    """Writes the digests of a folder's files but the hidden ones, and what is below.

    Args:
      folder: a dataset, all of whose files were written.
      known: digests that were made before, by name; those files are not read, and need
        not be here any more.

    Raises:
      UserError: if a file cannot be read or the list not be written.
      OSError: if the disk fails.
    """
    names = {
        path.name
        for path in folder.iterdir()
        if path.is_file() and path.name != FILE and not path.name.startswith(".")
    }
    lines = []
    for name in sorted({*names, *known}):
        nbytes, sha256 = known.get(name) or digest_file(folder / name)
        lines.append(f"# {nbytes}\n{sha256}  {name}\n")
    write_whole(folder / FILE, "".join(lines))


def read_digests(folder: Path) -> dict[str, FileDigest]:
    """Reads the digests of a dataset's files, by name.

    Raises:
      UserError: if there are none, or their list is damaged.
    """
    if not os.path.lexists(folder / FILE):
        raise UserError(
            f"{folder}: not verifiable, prepared by another version or incomplete (it "
            f"has no {FILE}); {REMEDY}"
        )
    text = read_file(folder / FILE, LARGEST).decode(errors="replace")
    entries = list(_ENTRY.finditer(text))
    if not entries or "".join(entry[0] for entry in entries) != text:
        raise UserError(f"{folder}: damaged ({FILE} is malformed); {REMEDY}")
    return {entry[3]: FileDigest(int(entry[1]), entry[2]) for entry in entries}


def check_size(name: str, nbytes: int, digests: Mapping[str, FileDigest]) -> None:
    """Compares a file's size with the one it was written with.

    Raises:
      ValueError: if it differs, or the file has no digest.
    """
    expected = digests.get(name)
    if expected is None:
        raise ValueError(f"{name} was added: {FILE} has no digest of it")
    if nbytes != expected.nbytes:
        raise ValueError(
            f"{name} is not as it was written: it has {nbytes:,} bytes, not "
            f"{expected.nbytes:,}"
        )


def verify_file(path: Path, digests: Mapping[str, FileDigest]) -> None:
    """Compares a file with its digest.

    Raises:
      ValueError: if it is not as it was written, or has no digest.
      UserError: if it is not a regular file.
      OSError: if it is missing, or cannot be read.
    """
    # First: one that grew may be without end.
    check_size(path.name, path.stat().st_size, digests)
    if digest_file(path) != digests[path.name]:
        raise ValueError(f"{path.name} is not as it was written: its SHA-256 differs")
