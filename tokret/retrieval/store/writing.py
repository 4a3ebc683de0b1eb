"""Writing a store, batch by batch, and resuming it."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import numpy as np

from tokret.errors import UserError
from tokret.io.atomic_files import sync_folder, write_whole
from tokret.io.file_locks import held
from tokret.io.json_files import read_json
from tokret.io.regular_files import read_file
from tokret.io.remote.fetching import fetch
from tokret.io.remote.uploading import publish, withdraw
from tokret.io.remote.urls import url_of
from tokret.retrieval.store.journal import encode_batch, read_batches
from tokret.retrieval.store.reading import (
    DESCRIPTORS,
    JOURNAL,
    MAX_RECORD,
    RECORD,
    REMEDY,
    UNFINISHED,
    Store,
    StoreFile,
    UnfinishedFile,
    checksum,
    descriptors_checksum,
    fetch_store,
    map_descriptors,
    read_store,
)
from tokret.retrieval.store.record import Record
from tokret.retrieval.store.remote_batches import PartUploads, restore_parts
from tokret.shapes import Bool, Float, Int


class NoReadablePhotoError(UserError):
    """Not a single photo could be read."""


@contextlib.contextmanager
def write_store(folder: Path, record: Record) -> Iterator["StoreWriter"]:
    """Starts a store, or resumes it, and locks it until the end.

    Raises:
      UserError: another process is writing it, it has descriptors of another record, it
        is damaged, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be created: {error.strerror}") from error
    refusal = f"{folder}: another process is writing these descriptors; wait for it"
    with held(folder / ".lock", refusal):
        writer = StoreWriter(folder, record)
        try:
            yield writer
        except BaseException:
            with contextlib.suppress(UserError):  # of the upload: the other matters
                writer.close()
            raise
        writer.close()


class StoreWriter:
    """A store that is being written; `write_store` returns one."""

    # [N] which rows are on the disk; all of them if it is complete
    finished: Bool[np.ndarray, " n"]

    def __init__(self, folder: Path, record: Record) -> None:
        """Reads the finished rows."""
        self._folder, self._record = folder, record
        self._bad: dict[int, str] = {}
        self._files: tuple[int, int] | None = None  # descriptors, journal
        self._row_bytes, self._start, self._journal_end = 0, 0, 0
        self.finished = np.zeros(len(record.images), bool)
        self._parts = None if url_of(folder) is None else PartUploads(folder)
        # Files that a killed process was writing.
        for name in (RECORD, UNFINISHED, DESCRIPTORS):
            for draft in folder.glob(f".{name}.*"):
                draft.unlink(missing_ok=True)
        if self._parts is not None:
            fetch(folder, lambda name: name in (RECORD, UNFINISHED))
        self._check_same()
        if self._parts is not None:
            self._fetch_rows()
        if (folder / RECORD).exists():
            self.finished[:] = True
        elif (folder / UNFINISHED).exists():
            self._resume()
        else:
            self._write_json(UNFINISHED, UnfinishedFile(record=record))

    def _fetch_rows(self) -> None:
        if (self._folder / RECORD).exists():
            fetch_store(self._folder)
        else:
            restore_parts(self._folder, len(self.finished))

    def _write_json(self, name: str, content: UnfinishedFile) -> None:
        write_whole(self._folder / name, msgspec.json.encode(content) + b"\n")
        publish(self._folder / name)

    def _check_same(self) -> None:
        for name in (RECORD, UNFINISHED):
            path = self._folder / name
            if path.exists():
                theirs = read_json(path, UnfinishedFile, REMEDY, MAX_RECORD)
                found = self._record.difference(theirs.record)
                if found:
                    raise UserError(
                        f"{self._folder}: has the descriptors of another extraction "
                        f"({found}): {REMEDY}"
                    )

    def _resume(self) -> None:
        """Keeps the batches whose rows still have the checksums of the journal."""
        journal = self._folder / JOURNAL
        content = read_file(journal, MAX_RECORD) if journal.exists() else b""
        batches, self._journal_end = read_batches(content)
        array = map_descriptors(self._folder)
        if array is None or len(array) != len(self.finished):
            self._journal_end = 0
            return
        for batch in batches:
            rows = np.array(batch.rows, np.int64)
            if (rows >= len(array)).any() or not batch.bad.keys() <= {*batch.rows}:
                continue
            if checksum(array[row].tobytes() for row in rows) == batch.checksum:
                self.finished[rows] = True
                self._bad |= batch.bad
        self._open(array.shape[1])

    def write(
        self,
        rows: Int[np.ndarray, " b"],
        descriptors: Float[np.ndarray, "b d"],
        bad: Mapping[int, str],
    ) -> None:
        """Adds a batch [B, D], NaN for bad rows; it is synchronised to the disk.

        Raises:
          UserError: the disk cannot be written.
        """
        data = [row.tobytes() for row in np.asarray(descriptors, np.float32)]
        line = encode_batch(rows.tolist(), bad, checksum(data))
        try:
            store, journal = self._files or self._open(descriptors.shape[1])
            for row, content in zip(rows.tolist(), data, strict=True):
                _write_all(store, content, self._start + row * self._row_bytes)
            os.fsync(store)
            _write_all(journal, line, self._journal_end)
            os.fsync(journal)
        except OSError as error:
            raise UserError(
                f"{self._folder}: cannot be written: {error.strerror}; finished "
                "batches are kept"
            ) from error
        if self._parts is not None:
            self._parts.add(line, data)
        self._journal_end += len(line)
        self.finished[rows] = True
        self._bad |= bad

    def mark_bad(self, bad: Mapping[int, str]) -> None:
        """Adds images that were in no batch, since they could not even be opened.

        Raises:
          UserError: the disk cannot be written.
          NoReadablePhotoError: no image has a descriptor.
        """
        left = {row: why for row, why in bad.items() if not self.finished[row]}
        if not left:
            return
        if self._files is None:
            raise NoReadablePhotoError(
                f"no photo can be read; the first: {bad[min(bad)]}"
            )
        rows = np.array(sorted(left))
        nothing = np.full((len(rows), self._row_bytes // 4), np.nan, np.float32)
        self.write(rows, nothing, left)

    def finish(self) -> Store:
        """Completes the store, once all rows are written, and opens it.

        Raises:
          UserError: the disk cannot be written, or returns other content.
        """
        assert self.finished.all(), "rows are missing"
        if not (self._folder / RECORD).exists():
            array = map_descriptors(self._folder)
            assert array is not None, "there is no batch"
            content = StoreFile(
                record=self._record,
                dimensions=array.shape[1],
                bad={row: self._bad[row] for row in sorted(self._bad)},
                checksum=descriptors_checksum(array),
            )
            publish(self._folder / DESCRIPTORS)
            self._write_json(RECORD, content)
        for name in (UNFINISHED, JOURNAL):
            (self._folder / name).unlink(missing_ok=True)
        if self._parts is not None:
            self._parts.remove()
            withdraw(self._folder / UNFINISHED)
        return read_store(self._folder)

    def _open(self, dimensions: int) -> tuple[int, int]:
        """Opens the two files; creates missing ones, at their full length."""
        path = self._folder / DESCRIPTORS
        shape = (len(self.finished), dimensions)
        array = map_descriptors(self._folder, shape)
        if array is None:
            draft = path.with_name(f".{path.name}.partial")
            array = np.lib.format.open_memmap(draft, "w+", np.float32, shape)
            array.flush()
            os.replace(draft, path)
        self._row_bytes, self._start = 4 * dimensions, int(array.offset)
        store = os.open(path, os.O_RDWR)
        journal = os.open(self._folder / JOURNAL, os.O_RDWR | os.O_CREAT, 0o666)
        self._files = (store, journal)
        # Removes a torn line, and lines of descriptors that are gone.
        os.ftruncate(journal, self._journal_end)
        sync_folder(self._folder)
        return self._files

    def close(self) -> None:
        """Closes the files; finished batches are kept."""
        for file in self._files or ():
            os.close(file)
        self._files = None
        if self._parts is not None:
            self._parts.close()


def _write_all(file: int, data: bytes, offset: int) -> None:
    """Writes all of it at an offset of a file, in as many calls as needed."""
    view = memoryview(data)
    while view:
        done = os.pwrite(file, view, offset)
        view, offset = view[done:], offset + done
