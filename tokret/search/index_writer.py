"""The catalogue and the parts of an index while it is updated, safe against a kill."""

import dataclasses
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from tokret.data.decoding import MAX_PIXELS
from tokret.errors import UserError
from tokret.io.atomic_files import sync_folder, write_whole
from tokret.io.remote.outputs import names_in
from tokret.io.remote.uploading import publish, withdraw
from tokret.retrieval.store.record import Images
from tokret.runtime.ending import keeps
from tokret.search import part_stores
from tokret.search.catalogue import (
    FILE,
    PARTS,
    WEIGHTS,
    Catalogue,
    PhotoEntry,
    encode_catalogue,
    read_catalogue,
)
from tokret.search.extractor import Extractor
from tokret.search.photos import Stamp
from tokret.search.remote_index import remove_folder
from tokret.shapes import Float

REBUILD = "rebuild.json"  # the catalogue of a rebuild, until it is complete
DRAFT = ".catalogue.partial"  # of the one process that has the lock


@dataclasses.dataclass(frozen=True)
class Limits:
    """The sizes of parts and photos."""

    rows: int = 4096  # most rows of a part
    seconds: float = 10.0  # of extraction, after which a part is written
    max_pixels: int = MAX_PIXELS  # of a photo
    small: int = 16  # parts less than half full; more are merged


class IndexWriter:
    """Adds parts, and the photos that they have, to the catalogue of an index."""

    # by path relative to the root
    photos: dict[str, PhotoEntry]
    damaged: Sequence[str]  # why parts cannot be used; their photos are not in `photos`

    def __init__(
        self,
        index: Path,
        file: str,
        catalogue: Catalogue,
        extractor: Extractor,
        limits: Limits,
        is_held: Callable[..., bool],
    ) -> None:
        """Starts from a catalogue, which is to be written to a file in the index.

        `is_held` returns whether the index is still locked, as `file_locks.held`.
        """
        self._index, self._file, self._limits = index, file, limits
        self._catalogue, self._extractor = catalogue, extractor
        self._is_held = is_held
        self._stores, self.damaged = part_stores.open_parts(index, catalogue)
        self.photos = {
            name: entry
            for name, entry in catalogue.photos.items()
            if not entry.part or entry.part in self._stores
        }

    def add_part(
        self,
        images: Images,
        descriptors: Float[np.ndarray, "n d"],
        files: Sequence[Mapping[str, Stamp]],
    ) -> None:
        """Writes a part, and the catalogue with it.

        Args:
          images: of its rows.
          descriptors: of its rows.
          files: of each row, the photos with its content.

        Raises:
          UserError: the disk cannot be written, or the lock is gone.
        """
        part = self._write_part(images, descriptors)
        for row, (stamps, digest) in enumerate(zip(files, images.digests, strict=True)):
            for name, stamp in stamps.items():
                self.photos[name] = PhotoEntry(stamp, "", digest, part, row)
        self._write()
        keeps(f"what was extracted is kept in {self._index}; the same command resumes")
        self._merge_small()

    def finish(self, found: Collection[str]) -> int:
        """Removes the photos that are not found any more.

        Returns:
          How many of them have a content that no photo has now.

        Raises:
          UserError: no photo has a descriptor, the disk cannot be written, or the lock
            is gone.
        """
        removed = [self.photos.pop(name) for name in self.photos.keys() - found]
        kept = {entry.digest for entry in self.photos.values() if entry.part}
        gone = sum(entry.digest not in kept for entry in removed)
        if all(entry.error for entry in self.photos.values()):
            name, entry = next(iter(self.photos.items()))
            why = entry.error if name in entry.error else f"{name}: {entry.error}"
            raise UserError(
                f"none of the {len(self.photos)} photos in {self._catalogue.root} can "
                f"be read; the first: {why}"
            )
        self._write()
        self._merge_small()
        if self._file == REBUILD:
            os.replace(self._index / REBUILD, self._index / FILE)
            sync_folder(self._index)
            publish(self._index / FILE)
            withdraw(self._index / REBUILD)
        sweep(self._index)
        return gone

    def _current(self) -> Catalogue:
        return msgspec.structs.replace(self._catalogue, photos=self.photos, checksum=0)

    def _write(self) -> None:
        # Else what another process has added since would be lost.
        if not self._is_held(now=True):
            raise UserError(
                f"index={self._index}: its lock was removed or taken by another "
                "process, so this update ends; start it again"
            )
        path, content = self._index / self._file, encode_catalogue(self._current())
        if not path.exists() or path.read_bytes() != content:
            write_whole(path, content, self._index / DRAFT)
            publish(path)

    def _write_part(self, images: Images, descriptors: Float[np.ndarray, "n d"]) -> str:
        part, store = part_stores.write_part(
            self._index, self._extractor.system.record(images), descriptors
        )
        self._stores[part] = store
        return part

    def _merge_small(self) -> None:
        """Merges parts that are less than half in use, where there are many."""
        live, most = self._current().live_rows(), self._limits.rows
        small = [part for part, rows in live.items() if len(rows) < most // 2]
        if len(small) <= self._limits.small:
            return
        places = [(part, row) for part in small for row in sorted(live[part])]
        for start in range(0, len(places), most):
            moved = places[start : start + most]
            part = self._write_part(*part_stores.take_rows(self._stores, moved))
            for row, (old, old_row) in enumerate(moved):
                for name in live[old][old_row]:
                    entry = self.photos[name]
                    self.photos[name] = msgspec.structs.replace(
                        entry, part=part, row=row
                    )
        self._write()
        sweep(self._index)


def sweep(index: Path) -> None:
    """Removes parts and weights that no catalogue refers to, if all can be read."""
    kept: set[str] = set()
    for file in (FILE, REBUILD):
        if (index / file).exists():
            try:
                catalogue = read_catalogue(index, file)
            except UserError:
                return
            kept |= {catalogue.model.copy, *catalogue.live_rows()}
    for kind in (PARTS, WEIGHTS):
        for name in names_in(index / kind) - kept:
            # Only what has a name as `secrets.token_hex(8)` gives it.
            if re.fullmatch("[0-9a-f]{16}", name):
                remove_folder(index / kind / name)
