"""The two file formats in which PyTorch stores a pickle and its tensors' storages.

Both end with raw little-endian storages. The zip format (PyTorch 1.6 and later) has an
entry for the pickle and one for each storage, none compressed, each with its CRC-32;
the legacy format has five pickles in a row (a magic number, a version, facts about the
machine, the object, the keys of the storages) and then for each storage its length and
its bytes, and no checksums.
"""

import io
import mmap
import struct
import zipfile
import zlib
from collections.abc import Mapping
from typing import BinaryIO, NamedTuple

import numpy as np

from tokret.io.torch_pickle import FaultError, Storage, read_pickle
from tokret.names import printable

ZIP_MAGIC = b"PK\x03\x04"
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_VERSION = 1001

MAX_PICKLE = 32 * 2**20  # bytes; a thousand tensors take 0.2 MB
MAX_DIRECTORY = 4 * 2**20  # bytes; a thousand entries take 0.1 MB


class TorchFile(NamedTuple):
    """A PyTorch file, opened.

    Attributes:
      top: the pickle's content, its tensors as `torch_pickle.Tensor`.
      starts: for each storage's key, where in the file its bytes begin; all of them
        are inside the file.
      verified: whether all that is used agreed with the file's checksums.
    """

    top: object
    starts: dict[str, int]
    verified: bool


def open_zip(raw: np.ndarray, file: BinaryIO) -> TorchFile:
    """Opens a file of the zip format, and compares what is used with its checksums.

    Args:
      raw: uint8 [n], the whole file, mapped.
      file: the same file.

    Raises:
      FaultError: it is malformed, damaged, or a program (TorchScript).
    """
    entries = {info.filename: info for info in open_archive(file).infolist()}
    roots = [name[:-8] for name in entries if name.split("/")[1:] == ["data.pkl"]]
    if len(roots) != 1:
        raise FaultError(
            "a zip archive that torch.save did not write: it has no data.pkl in its "
            "one folder; unpack it if weights are inside"
        )
    root = roots[0]
    if any(n.startswith((f"{root}code/", f"{root}constants.pkl")) for n in entries):
        raise FaultError(
            "a TorchScript archive, which is a program; load it with torch.jit.load "
            "and save its state_dict()"
        )
    # PyTorch writes zeros for all of them if it is set to compute none.
    verified = any(info.CRC for info in entries.values())
    if f"{root}byteorder" in entries:
        order = _content(raw, entries[f"{root}byteorder"], 16, verified)
        _require_little(order == b"little")
    pickled = _content(raw, entries[f"{root}data.pkl"], MAX_PICKLE, verified)
    top, storages = read_pickle(io.BytesIO(pickled))
    lost = [key for key in storages if f"{root}data/{key}" not in entries]
    if lost:
        raise FaultError(f"lacks storage {printable(lost[0], 80)}; get it again")
    used = {key: entries[f"{root}data/{key}"] for key in storages}
    starts = {key: _storage_start(raw, used[key], storages[key]) for key in storages}
    _require_disjoint(starts, storages)
    if verified:
        for key, info in used.items():
            _require_checksum(raw[starts[key] :][: info.file_size], info)
    return TorchFile(top, starts, verified)


def _content(
    raw: np.ndarray, info: zipfile.ZipInfo, most: int, verified: bool
) -> bytes:
    start, size = _extent(raw, info)
    if size > most:
        name = printable(info.filename, 80)
        raise FaultError(f"its {name} has {size} bytes; save the state_dict() alone")
    content = raw[start : start + size]
    if verified:
        _require_checksum(content, info)
    return content.tobytes()


def _require_checksum(content: np.ndarray, info: zipfile.ZipInfo) -> None:
    if zlib.crc32(content.data) != info.CRC:
        raise FaultError(
            f"damaged: its entry {printable(info.filename, 80)} does not agree with "
            "its checksum; get it again"
        )


def _require_disjoint(
    starts: Mapping[str, int], storages: Mapping[str, Storage]
) -> None:
    """Refuses storages in the same bytes: each would be read as a whole."""
    end = 0
    for key in sorted(starts, key=lambda key: (starts[key], storages[key].nbytes)):
        if starts[key] < end:
            raise FaultError(
                f"malformed: storage {printable(key, 80)} is in the bytes of another; "
                "get it again"
            )
        end = starts[key] + storages[key].nbytes


def _require_little(little: bool) -> None:
    if not little:
        raise FaultError("big-endian; save it again on a little-endian machine")


class _Bounded(io.RawIOBase):
    """A file that reads no more at once than a plausible directory of entries has."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if size > MAX_DIRECTORY:
            raise FaultError("its zip directory is too large for weights; get it again")
        # Without a size the archive's end is read: a comment of 64 KiB.
        return self._file.read(2**17 if size < 0 else size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def open_archive(file: BinaryIO) -> zipfile.ZipFile:
    """Opens a zip archive: its directory is read, in which no name is twice.

    Raises:
      FaultError: it is malformed, or larger than weights need.
    """
    try:
        archive = zipfile.ZipFile(_Bounded(file))
    except FaultError:
        raise
    # Besides BadZipFile: struct.error, ValueError, NotImplementedError, OSError.
    except Exception as error:
        raise FaultError(
            f"truncated or malformed ({type(error).__name__} in the zip archive's "
            "directory, which is its end); get it again"
        ) from error
    names = archive.namelist()
    if len(set(names)) < len(names):
        raise FaultError("a zip archive with two entries of one name; get it again")
    return archive


def _extent(raw: np.ndarray, info: zipfile.ZipInfo) -> tuple[int, int]:
    """Returns where an entry's bytes begin, and how many there are."""
    name = printable(info.filename, 80)
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        raise FaultError(
            f"its entry {name} is compressed or encrypted; torch.save does neither, "
            "get the file that it wrote"
        )
    at = info.header_offset
    header = raw[at : at + 30].tobytes()
    if at >= 0 and len(header) == 30 and header.startswith(ZIP_MAGIC):
        start = at + 30 + sum(struct.unpack("<HH", header[26:]))  # name, extra field
        if info.file_size == info.compress_size and start + info.file_size <= len(raw):
            return start, info.file_size
    raise FaultError(f"truncated or malformed at its entry {name}; get it again")


def _storage_start(raw: np.ndarray, info: zipfile.ZipInfo, storage: Storage) -> int:
    start, size = _extent(raw, info)
    if size != storage.nbytes:
        raise FaultError(
            f"its entry {printable(info.filename, 80)} has {size} bytes and its pickle "
            f"expects {storage.nbytes}; get it again"
        )
    return start


def open_legacy(raw: np.ndarray, file: BinaryIO) -> TorchFile:
    """Opens a file of the legacy format, as `open_zip`; reads the storages' lengths."""
    size = min(len(raw), MAX_PICKLE)
    with mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as stream:
        magic, _ = read_pickle(stream)
        if type(magic) is not int or magic != LEGACY_MAGIC:
            raise FaultError("a pickle that torch.save did not write; use torch.save")
        version, _ = read_pickle(stream)
        if type(version) is not int or version != LEGACY_VERSION:
            raise FaultError("of an unknown version; save it with a newer PyTorch")
        machine, _ = read_pickle(stream)
        facts = machine if isinstance(machine, dict) else {}
        _require_little(facts.get("little_endian") is True)
        top, storages = read_pickle(stream)
        keys, _ = read_pickle(stream)
        position = stream.tell()
    return TorchFile(top, _legacy_starts(raw, position, keys, storages), False)


def _legacy_starts(
    raw: np.ndarray, position: int, keys: object, storages: Mapping[str, Storage]
) -> dict[str, int]:
    """Locates the storages, which follow each other from `position`."""
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise FaultError(
            "truncated or malformed: its storages have no keys; get it again"
        )
    if sorted(keys) != sorted(storages):
        raise FaultError(
            "truncated or malformed: the storages it lists are not those of its "
            "tensors; get it again"
        )
    starts = {}
    for key in keys:
        storage = storages[key]
        length = int.from_bytes(raw[position : position + 8].tobytes(), "little")
        starts[key] = position + 8
        position += 8 + storage.nbytes
        if position > len(raw):
            raise FaultError(
                f"truncated: it has {len(raw)} bytes, and storage {printable(key, 80)} "
                f"ends at {position}; get it again"
            )
        if length != storage.total:
            raise FaultError(
                f"storage {printable(key, 80)} has {length} elements and its pickle "
                f"expects {storage.total}; get it again"
            )
    return starts
