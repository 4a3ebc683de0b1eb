"""Plain copies of compressed archives, for as long as a dataset is being prepared.

A .tgz can only be read from its beginning, and photos are wanted in another order and
by many processes. So it is decompressed once, as a stream, into a tar of the same size
(photos hardly compress) beside the shards that are being made; it goes when they are
done. Whoever lacks the room unpacks the archives, and the folders are read instead.
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
MOST_GROWTH = 20
FREE_GROWTH = 256 * 2**20
THREADS = 8


class _StoppedError(Exception):
    """Another archive failed, or the user has had enough."""


def plain_archives(archives: Sequence[Path], folder: Path) -> list[Path]:
    """Returns plain tars with the content of archives, compressed or not.

    Args:
      archives: .tgz, .tar.gz or .tar.
      folder: where the copies go; those that are there are taken as they are.

    Raises:
      UserError: if an archive is damaged, cut short or grows beyond all measure, or
        there is no room for the copies.
      WriteError: if the disk takes no more.
    """
    targets = [_target(archive, folder) for archive in archives]
    waiting = [
        (archive, target)
        for archive, target in zip(archives, targets, strict=True)
        if not target.exists()
    ]
    if waiting:
        folder.mkdir(exist_ok=True)
        for leftover in folder.glob("*.tmp"):
            leftover.unlink()
        _reject_full(sum(a.stat().st_size for a, _ in waiting), folder)
        _copy_all(waiting)
    return targets


def _target(archive: Path, folder: Path) -> Path:
    """Where an archive's content lies plain: some are so, whatever they are called."""
    with archive.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    return folder / f"{archive.name}.plain" if compressed else archive


def _reject_full(size: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise UserError(
            f"{folder} has room for {free / 2**30:.1f} GiB, and the archives need "
            f"{size / 2**30:.1f} GiB there while they are read; make room, or unpack "
            "them yourself and remove them"
        )


def _copy_all(pairs: Sequence[tuple[Path, Path]]) -> None:
    total = sum(archive.stat().st_size for archive, _ in pairs)
    stop = threading.Event()
    # disable=None: no bar where standard error is no terminal.
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
    most = max(FREE_GROWTH, MOST_GROWTH * archive.stat().st_size)
    written = told = 0
    try:
        with archive.open("rb") as raw, partial.open("wb") as output:
            stream = gzip.GzipFile(fileobj=raw)
            while chunk := _read(stream, archive):
                written += len(chunk)
                if written > most:
                    raise UserError(
                        f"{archive} grows to more than {most >> 20} MiB when it is "
                        "decompressed, which no archive of photos does; get it again "
                        "from its host"
                    )
                _write(output.write, chunk)
                progress(raw.tell() - told)
                told = raw.tell()
            _write(output.flush)
            _write(os.fsync, output.fileno())
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def _read(stream: gzip.GzipFile, archive: Path) -> bytes:
    try:
        return stream.read(CHUNK)
    except EOFError as error:
        raise UserError(
            f"{archive} is cut short; get it again from its host"
        ) from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise UserError(
            f"{archive} is damaged ({error}); get it again from its host"
        ) from error


def _write(call: Callable[..., object], *arguments: object) -> None:
    try:
        call(*arguments)
    except OSError as error:
        raise WriteError(error.strerror or str(error)) from error
