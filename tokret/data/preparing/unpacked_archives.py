"""Uncompressed copies of archives, for as long as a dataset is being prepared.

A .tgz can only be read from its start, and photos are needed in another order and by
many processes. So it is decompressed once, as a stream, into a tar of the same size
(photos hardly compress) beside the shards that are being written, and removed with
them. Without the disk space for it, unpack the archives: the folders are read instead.
"""

import gzip
import os
import shutil
import threading
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from tokret.data.preparing.shards import WriteError
from tokret.errors import UserError

CHUNK = 2**20
# A stream may grow to this many times the archive, and to this many bytes in any case:
# the real ones grow by some percent.
MAX_GROWTH = 20
FREE_GROWTH = 256 * 2**20
THREADS = 8


class _StoppedError(Exception):
    """Another archive failed, or the user interrupted."""


def unpack(archives: Sequence[Path], folder: Path) -> list[Path]:
    """Returns uncompressed tars with the contents of archives, compressed or not.

    Copies are written to a folder; existing ones are used as they are.

    Raises:
      UserError: if an archive is damaged, truncated or grows beyond MAX_GROWTH, or
        there is no space for the copies.
      WriteError: if the disk is full or fails.
    """
    targets = {archive: _target(archive, folder) for archive in archives}
    waiting = [pair for pair in targets.items() if not pair[1].exists()]
    if waiting:
        folder.mkdir(exist_ok=True)
        for leftover in folder.glob("*.tmp"):
            leftover.unlink()
        _reject_full(sum(a.stat().st_size for a, _ in waiting), folder)
        _copy_all(waiting)
    return list(targets.values())


def _target(archive: Path, folder: Path) -> Path:
    """Path of an archive's uncompressed copy, or of a tar that is not compressed."""
    with archive.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    return folder / f"{archive.name}.plain" if compressed else archive


def _reject_full(size: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise UserError(
            f"{folder} has {free / 2**30:.1f} GiB of free space, and the archives need "
            f"{size / 2**30:.1f} GiB there while they are read; free some, or unpack "
            "the archives and remove them"
        )


def _copy_all(pairs: Sequence[tuple[Path, Path]]) -> None:
    total = sum(archive.stat().st_size for archive, _ in pairs)
    stop = threading.Event()
    # disable=None: no bar where standard error is not a terminal.
    with (
        tqdm(
            total=total, desc="unpacking", unit="B", unit_scale=True, disable=None
        ) as bar,
        ThreadPoolExecutor(min(THREADS, len(pairs))) as threads,
    ):

        def progress(read: int) -> None:
            if stop.is_set():
                raise _StoppedError
            bar.update(read)

        try:
            copies = [threads.submit(_copy, *pair, progress) for pair in pairs]
            for copy in copies:
                copy.result()
        finally:
            stop.set()


def _copy(archive: Path, target: Path, progress: Callable[[int], None]) -> None:
    partial = target.with_name(target.name + ".tmp")
    limit = max(FREE_GROWTH, MAX_GROWTH * archive.stat().st_size)
    written = position = 0
    try:
        with archive.open("rb") as raw, partial.open("wb") as output:
            stream = gzip.GzipFile(fileobj=raw)
            while chunk := _read(stream, archive):
                written += len(chunk)
                if written > limit:
                    raise UserError(
                        f"{archive} grows to more than {limit >> 20} MiB when it is "
                        "decompressed, which no archive of photos does; download it "
                        "again"
                    )
                _write(output.write, chunk)
                progress(raw.tell() - position)
                position = raw.tell()
            _write(output.flush)
            _write(os.fsync, output.fileno())
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def _read(stream: gzip.GzipFile, archive: Path) -> bytes:
    try:
        return stream.read(CHUNK)
    except EOFError as error:
        raise UserError(f"{archive} is truncated; download it again") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{archive} is damaged ({error}); download it again") from error


def _write(call: Callable[..., object], *arguments: object) -> None:
    try:
        call(*arguments)
    except OSError as error:
        raise WriteError(error.strerror or str(error)) from error
