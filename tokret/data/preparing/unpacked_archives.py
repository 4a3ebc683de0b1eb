"""Uncompressed copies of archives, for as long as a dataset is being prepared.

A .tgz can only be read from its start, and photos are needed in another order and by
many processes. So it is decompressed once, as a stream, into a tar of the same size
(photos hardly compress) beside the shards that are being written, and removed with
them. Without the disk space for it, unpack the archives: the folders are read instead.
"""

import os
import shutil
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tokret.data.preparing.decompression import CHUNK, Decompressed, is_compressed
from tokret.data.preparing.shards import WriteError
from tokret.errors import UserError
from tokret.runtime.progress import progress_bar

THREADS = 8


class _StoppedError(Exception):
    """Another archive failed, or the user interrupted."""


def unpack(archives: Sequence[Path], folder: Path) -> list[Path]:
    """Returns uncompressed tars with the contents of archives, compressed or not.

    Copies are written to a folder; existing ones are used as they are.

    Raises:
      UserError: if an archive is damaged, truncated or grows beyond the limits of
        `Decompressed`, or there is no space for the copies.
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
    return folder / f"{archive.name}.plain" if is_compressed(archive) else archive


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
    with (
        progress_bar(total=total, desc="unpacking", unit="B", unit_scale=True) as bar,
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
    position = 0
    try:
        with Decompressed(archive) as stream, partial.open("wb") as output:
            while chunk := stream.read(CHUNK):
                _write(output.write, chunk)
                progress(stream.position() - position)
                position = stream.position()
            _write(output.flush)
            _write(os.fsync, output.fileno())
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def _write(call: Callable[..., object], *arguments: object) -> None:
    try:
        call(*arguments)
    except OSError as error:
        raise WriteError(error.strerror or str(error)) from error
