"""Making a store, batch by batch, and going on with one."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from tokret.errors import UserError
from tokret.io.atomic_files import sync_folder, write_whole
from tokret.io.file_locks import held
from tokret.retrieval.store.journal import (
    Entry,
    checksum_of,
    read_journal,
    to_line,
    write_all,
)
from tokret.retrieval.store.reading import (
    DESCRIPTORS,
    JOURNAL,
    RECORD,
    UNFINISHED,
    Store,
    checksum,
    map_descriptors,
    read_store,
)
from tokret.retrieval.store.record import Record, read_fields, to_record, to_text
from tokret.shapes import Bool, Float, Int


class NothingReadableError(UserError):
    """There is no image at all to be described."""


@contextlib.contextmanager
def making(folder: Path, record: Record) -> Iterator["StoreWriter"]:
    """Begins a store, goes on with it, or finds it complete; alone, until the end.

    Args:
      folder: the store's; made where it is missing.
      record: whose descriptors they are, of which images, made how.

    Raises:
      UserError: another process is making it, it holds descriptors of another record,
        it is damaged, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made: {error.strerror}") from error
    refusal = f"{folder}: another process is writing these descriptors; wait for it"
    with held(folder / ".lock", refusal):
        writer = StoreWriter(folder, record)
        try:
            yield writer
        finally:
            writer.close()


class StoreWriter:
    """A store that is being made; `making` makes one.

    Attributes:
      finished: [N] which rows are on the disk; all of them if it is complete.
    """

    finished: Bool[np.ndarray, " n"]

    def __init__(self, folder: Path, record: Record) -> None:
        """Finds what is there."""
        self._folder, self._record = folder, record
        self._bad: dict[int, str] = {}
        self._files: tuple[int, int] | None = None  # descriptors, journal
        self._row_bytes, self._start, self._journal_end = 0, 0, 0
        self.finished = np.zeros(len(record.images), bool)
        self._remove_drafts()
        self._check_same()
        if (folder / RECORD).exists():
            self.finished[:] = True
        elif (folder / UNFINISHED).exists():
            self._go_on()
        else:
            write_whole(folder / UNFINISHED, to_text(record.fields()))

    def _remove_drafts(self) -> None:
        """Removes what a process that was killed was writing."""
        for name in (RECORD, UNFINISHED, DESCRIPTORS):
            for draft in self._folder.glob(f".{name}.*"):
                draft.unlink(missing_ok=True)

    def _check_same(self) -> None:
        for name in (RECORD, UNFINISHED):
            path = self._folder / name
            if path.exists():
                theirs = to_record(read_fields(path), path)
                found = self._record.difference(theirs)
                if found:
                    raise UserError(
                        f"{self._folder} holds other descriptors than were asked for "
                        f"({found}); remove the folder to describe again"
                    )

    def _go_on(self) -> None:
        """Takes over the batches whose rows are as they were when they were noted."""
        entries, self._journal_end = read_journal(self._folder / JOURNAL)
        array = map_descriptors(self._folder)
        if array is None or len(array) != len(self.finished):
            self._journal_end = 0
            return
        for entry in entries:
            rows = np.array(entry.rows, np.int64)
            if ((rows < 0) | (rows >= len(array))).any():
                continue
            if checksum_of([array[row].tobytes() for row in rows]) == entry.checksum:
                self.finished[rows] = True
                self._bad |= entry.bad
        self._open(array.shape[1])

    def write(
        self,
        rows: Int[np.ndarray, " b"],
        descriptors: Float[np.ndarray, "b d"],
        bad: Mapping[int, str],
    ) -> None:
        """Adds a batch; when this returns, nothing but the disk can lose it.

        Args:
          rows: which rows they are.
          descriptors: theirs; NaN for those that are bad.
          bad: by row, why an image could not be described.

        Raises:
          UserError: the disk does not take it.
        """
        data = [row.tobytes() for row in np.asarray(descriptors, np.float32)]
        line = to_line(Entry(tuple(rows.tolist()), dict(bad), checksum_of(data)))
        try:
            store, journal = self._files or self._open(descriptors.shape[1])
            for row, content in zip(rows.tolist(), data, strict=True):
                write_all(store, content, self._start + row * self._row_bytes)
            os.fsync(store)
            write_all(journal, line, self._journal_end)
            os.fsync(journal)
        except OSError as error:
            raise UserError(
                f"{self._folder}: cannot be written: {error.strerror}; what is "
                "finished is kept"
            ) from error
        self._journal_end += len(line)
        self.finished[rows] = True
        self._bad |= bad

    def mark_bad(self, bad: Mapping[int, str]) -> None:
        """Notes images that came into no batch, since they could not even be opened.

        Raises:
          UserError: the disk does not take it.
          NothingReadableError: no image at all was described.
        """
        left = {row: why for row, why in bad.items() if not self.finished[row]}
        if not left:
            return
        if self._files is None:
            raise NothingReadableError(
                f"no photo can be read; of the first: {bad[min(bad)]}"
            )
        rows = np.array(sorted(left))
        nothing = np.full((len(rows), self._row_bytes // 4), np.nan, np.float32)
        self.write(rows, nothing, left)

    def finish(self) -> Store:
        """Completes the store, once all rows are there, and opens it.

        Raises:
          UserError: the disk does not take it, or gives back something else.
        """
        assert self.finished.all(), "rows are missing"
        if not (self._folder / RECORD).exists():
            array = map_descriptors(self._folder)
            assert array is not None, "there is no batch"
            ending = {
                "dimensions": array.shape[1],
                "bad": {str(row): self._bad[row] for row in sorted(self._bad)},
                "checksum": checksum(array),
            }
            fields = {**self._record.fields(), **ending}
            write_whole(self._folder / RECORD, to_text(fields))
        for name in (UNFINISHED, JOURNAL):
            (self._folder / name).unlink(missing_ok=True)
        return read_store(self._folder)

    def _open(self, dimensions: int) -> tuple[int, int]:
        """Opens the two files; makes them, at their full length, where they are not."""
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
        # What was torn, or belongs to descriptors that are gone.
        os.ftruncate(journal, self._journal_end)
        sync_folder(self._folder)
        return self._files

    def close(self) -> None:
        """Closes the files; what is finished stays."""
        for file in self._files or ():
            os.close(file)
        self._files = None
