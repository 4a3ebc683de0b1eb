"""Photos inside tar archives, located without unpacking them.

Nothing is written to a path that an archive names: for each regular file in it the
position of its bytes is listed, and photos are read from there. Archives come from the
internet, so every size is checked against the file. Python's tarfile is not used here:
it treats a damaged header as the end of the archive and loops on negative sizes.

Formats: POSIX ustar and pax, GNU tar, and the old format before both (IEEE Std 1003.1,
"pax"; GNU tar manual, "Basic Tar Format").
"""

import functools
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tokret.data.preparing.decompression import CHUNK, Decompressed, is_compressed
from tokret.data.preparing.photo_files import MAX_BYTES, PhotoLocation
from tokret.errors import UserError
from tokret.io.regular_files import open_file
from tokret.names import printable

BLOCK = 512
MAX_NAME = 2**16  # bytes of a long name
MAX_ATTRIBUTES = 2**20  # bytes of a member's pax attributes
_ZEROS = bytes(BLOCK)
_LENGTH = re.compile(rb"([1-9][0-9]{0,6}) ")

_REFUSED = {
    b"1": "a link",
    b"2": "a link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a pipe",
    b"S": "a sparse file",
}


class Member(NamedTuple):
    """A regular file in a tar: name with folders, offset in the tar, size in bytes."""

    name: str
    offset: int
    size: int


def list_members(path: Path) -> Iterator[Member]:
    """Lists the regular files of an uncompressed tar, in order.

    In names, bytes that are not UTF-8 are escaped.

    Raises:
      UserError: if it is not a tar, is damaged or truncated, or contains a file twice,
        a link, a device, a path out of its folder, or a file of more than MAX_BYTES.
    """
    with open_file(path) as file:
        number = file.fileno()
        size = os.fstat(number).st_size
        yield from _Tar(path, functools.partial(os.pread, number), size).members()


def locate_members(path: Path) -> Iterator[tuple[str, PhotoLocation]]:
    """Lists the names and locations of a tar's files, as `list_members` does."""
    for member in list_members(path):
        yield member.name, PhotoLocation(str(path), member.offset, member.size)


def read_members(path: Path) -> Iterator[tuple[str, PhotoLocation | bytes]]:
    """Lists the names of a tar's files, and their locations or, if compressed, bytes.

    A compressed tar is read once, from its start; at most a file is in memory.

    Raises:
      UserError: as `list_members` and `Decompressed`.
    """
    if not is_compressed(path):
        yield from locate_members(path)
        return
    with Decompressed(path) as stream:
        tar = _Tar(path, _Stream(stream))
        for member in tar.members():
            yield member.name, tar.content(member)
        while stream.read(CHUNK):  # to its end, where gzip's checksum is
            pass


class _Stream:
    """Reads at positions that only grow."""

    def __init__(self, stream: Decompressed) -> None:
        self._stream = stream
        self._position = 0

    def __call__(self, size: int, offset: int) -> bytes:
        while self._position < offset:
            skipped = self._stream.read(min(CHUNK, offset - self._position))
            if not skipped:
                return b""
            self._position += len(skipped)
        data = self._stream.read(size)
        self._position += len(data)
        return data


class _Header(NamedTuple):
    """The block before a member's data."""

    name: bytes
    size: int
    kind: bytes


class _Tar:
    """Reads header after header.

    `read` returns `size` bytes at an offset; `end` is the file's size, if it is known.
    """

    def __init__(
        self, path: Path, read: Callable[[int, int], bytes], end: int | None = None
    ):
        self._path = path
        self._read = read
        self._end = end
        self._offset = 0

    def content(self, member: Member) -> bytes:
        """Reads the bytes of the member that was listed last."""
        data = self._read(member.size, member.offset)
        if len(data) < member.size:
            raise self._error("is truncated")
        return data

    def members(self) -> Iterator[Member]:
        seen = set()
        for member in self._files():
            if member.name in seen:
                name = printable(member.name, 80)
                raise UserError(f"{self._path} contains {name} twice")
            seen.add(member.name)
            yield member

    def _files(self) -> Iterator[Member]:
        extended: dict[str, bytes] = {}  # attributes of the next member
        while (header := self._header()) is not None:
            start = self._offset
            if header.kind in b"LKxg":
                extended |= self._extended(header)
                size = header.size
            else:
                name = extended.get("path", header.name)
                size = self._number(extended, header)
                extended = {}
                file_name = self._file_name(name, size, header)
                if file_name is None:
                    size = 0  # a folder has no data, whatever its size field
                else:
                    if self._end is not None and start + size > self._end:
                        raise self._error(
                            f"is truncated: {printable(file_name, 80)} ends at byte "
                            f"{start + size}, the file has {self._end}"
                        )
                    yield Member(file_name, start, size)
            self._offset = start + -(-size // BLOCK) * BLOCK

    def _header(self) -> _Header | None:
        block = self._read(BLOCK, self._offset)
        # A tar ends with blocks of zeros. Without them it may be truncated between two
        # members; callers that know which to expect report the others as missing.
        if not block or block == _ZEROS:
            if self._offset == 0:
                raise self._error("is empty")
            return None
        if len(block) < BLOCK:
            raise self._error("is truncated")
        if not _checksum_agrees(block):
            damage = f"is damaged at byte {self._offset}"
            raise self._error(damage if self._offset else "is not a tar archive")
        self._offset += BLOCK
        name = block[:100].split(b"\0", 1)[0]
        if block[257:263] == b"ustar\0" and block[345]:
            name = block[345:500].split(b"\0", 1)[0] + b"/" + name
        return _Header(name, self._size(block[124:136]), block[156:157])

    def _size(self, field: bytes) -> int:
        if field[0] == 0x80:  # GNU's large numbers; negative ones start with 0xff
            return int.from_bytes(field[1:], "big")
        digits = field.strip(b" \0")
        if not re.fullmatch(rb"[0-7]*", digits):
            raise self._error(f"has no size in its header at byte {self._offset}")
        return int(digits or b"0", 8)

    def _extended(self, header: _Header) -> dict[str, bytes]:
        """The long name or attributes that a block gives the next member."""
        most = MAX_NAME if header.kind in b"LK" else MAX_ATTRIBUTES
        if header.size > most:
            raise self._error(
                f"has a name or attributes of {header.size} bytes at {self._offset}"
            )
        data = self._read(header.size, self._offset)
        if len(data) < header.size:
            raise self._error("is truncated")
        if header.kind == b"K":  # a link's target; links are refused
            return {}
        if header.kind == b"L":
            return {"path": data.split(b"\0", 1)[0]}
        found = self._attributes(data)
        if header.kind == b"g" and found:
            raise self._error("gives all its members one path or size")
        return found

    def _attributes(self, data: bytes) -> dict[str, bytes]:
        """Path and size among pax attributes, each LENGTH KEY=VALUE and a newline."""
        found = {}
        start = 0
        while start < len(data):
            match = _LENGTH.match(data, start)
            end = start + int(match[1]) if match else 0
            record = data[match.end() : end] if match and end <= len(data) else b""
            key, equals, value = record.partition(b"=")
            if not equals or not value.endswith(b"\n"):
                raise self._error(f"has malformed attributes at byte {self._offset}")
            if key.startswith(b"GNU.sparse"):
                raise self._error(f"contains a sparse file at byte {self._offset}")
            if key in (b"path", b"size"):
                found[key.decode()] = value[:-1]
            start = end
        return found

    def _number(self, extended: dict[str, bytes], header: _Header) -> int:
        size = extended.get("size")
        if size is None:
            return header.size
        if not re.fullmatch(rb"\d{1,19}", size):
            raise self._error(f"has no size in its attributes at byte {self._offset}")
        return int(size)

    def _file_name(self, raw: bytes, size: int, header: _Header) -> str | None:
        """The name of a regular file, None for a folder; anything else is refused."""
        name = raw.decode("utf-8", "backslashreplace")
        shown = printable(name, 80)
        if header.kind in _REFUSED:
            raise self._error(f"contains {_REFUSED[header.kind]}, {shown}")
        if header.kind not in (b"0", b"\0", b"7", b"5"):
            raise self._error(f"contains a member of unknown kind, {shown}")
        if raw.startswith(b"/") or b".." in raw.split(b"/") or not raw:
            raise self._error(f"contains a path that leads out of it, {shown!r}")
        if header.kind == b"5" or (header.kind == b"\0" and raw.endswith(b"/")):
            return None
        if size > MAX_BYTES:
            raise self._error(f"claims {size} bytes for {shown}, more than {MAX_BYTES}")
        return name

    def _error(self, problem: str) -> UserError:
        return UserError(f"{self._path} {problem}; download it again")


def _checksum_agrees(block: bytes) -> bool:
    """Checks a header's checksum, in which its own eight bytes count as spaces."""
    digits = block[148:156].strip(b" \0")
    if not re.fullmatch(rb"[0-7]{1,8}", digits):
        return False
    total = sum(block) - sum(block[148:156]) + 8 * ord(" ")
    if total == int(digits, 8):
        return True
    # Some old programs summed signed bytes.
    high = sum(byte > 127 for byte in block[:148] + block[156:])
    return total - 256 * high == int(digits, 8)
