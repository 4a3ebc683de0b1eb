"""The catalogue and the parts of an index while it is updated, safe against a kill."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from tokret.data.decoding import MAX_PIXELS
from tokret.errors import UserError
from tokret.io.remote.outputs import names_in
from tokret.retrieval.store.record import Images
from tokret.runtime.ending import keeps
from tokret.search.catalogue import FILE, PARTS, WEIGHTS, Catalogue, open_catalogue
from tokret.search.catalogue_rows import PhotoEntry
from tokret.search.catalogue_writing import CatalogueWriter
from tokret.search.extractor import Extractor
from tokret.search.part_stores import take_rows, to_array, write_part
from tokret.search.photos import Stamp
from tokret.search.remote_index import remove_folder
from tokret.shapes import Float

REBUILD = "rebuild.sqlite"  # the catalogue of a rebuild, until it is complete


@dataclasses.dataclass(frozen=True)
class Limits:
    """The sizes of parts and photos."""

    rows: int = 4096  # most rows of a part
    seconds: float = 10.0  # of extraction, after which a part is written
    max_pixels: int = MAX_PIXELS  # of a photo
    small: int = 16  # parts less than half full; more are merged


class IndexWriter:
    """Adds parts, and the photos that they have, to the catalogue of an index."""

    def __init__(
        self,
        index: Path,
        catalogue: CatalogueWriter,
        extractor: Extractor,
        limits: Limits,
        is_held: Callable[..., bool],
    ) -> None:
        """Starts from a catalogue.

        `is_held` returns whether the index is still locked, as `file_locks.held`.
        """
        self.catalogue = catalogue
        self._index, self._limits, self._extractor = index, limits, extractor
        self._is_held = is_held

    def add_part(
        self,
        images: Images,
        descriptors: Float[np.ndarray, "n d"],
        files: Sequence[Mapping[str, Stamp]],
    ) -> None:
        """Writes a part, and commits it with all changes before it.

        Args:
          images: of its rows.
          descriptors: of its rows.
          files: of each row, the photos with its content.

        Raises:
          UserError: the disk cannot be written, or the lock is gone.
        """
        part = self._write_part(images, descriptors)
        self.catalogue.put(
            PhotoEntry(name, stamp, "", digest, part, row)
            for row, (stamps, digest) in enumerate(
                zip(files, images.digests, strict=True)
            )
            for name, stamp in stamps.items()
        )
        self.commit()
        keeps(f"what was extracted is kept in {self._index}; the same command resumes")
        self._merge_small()

    def commit(self) -> None:
        """Commits all changes.

        Raises:
          UserError: the disk cannot be written, or the lock is gone.
        """
        # Else what another process has added since would be lost.
        if self.catalogue.is_changed and not self._is_held(now=True):
            raise UserError(
                f"index={self._index}: its lock was removed or taken by another "
                "process, so this update ends; start it again"
            )
        self.catalogue.commit()

    def finish(self, gone: Iterable[Sequence[str]] = ()) -> int:
        """Drops photos, and commits all changes.

        Args:
          gone: the photos that are not found any more.

        Returns:
          How many of them have a content that no photo has now.

        Raises:
          UserError: no photo has a descriptor, the disk cannot be written, or the lock
            is gone.
        """
        catalogue, lost = self.catalogue, 0
        for names in gone:
            dropped = catalogue.photos(names)
            catalogue.drop(names)
            kept = catalogue.photos_with(entry.digest for entry in dropped)
            lost += sum(
                entry.digest not in kept for entry in dropped if not entry.is_removed
            )
        self._check_readable()
        self.commit()
        self._merge_small()
        if catalogue.file == REBUILD:
            catalogue.replace_old()
        sweep(self._index)
        return lost

    def _check_readable(self) -> None:
        if self.catalogue.has_photos() or not (errors := self.catalogue.errors()):
            return
        name, why = next(iter(errors.items()))
        first = why if name in why else f"{name}: {why}"
        raise UserError(
            f"none of the {len(errors)} photos in {self.catalogue.root} can be read; "
            f"the first: {first}"
        )

    def _write_part(self, images: Images, descriptors: Float[np.ndarray, "n d"]) -> str:
        record = self._extractor.system.record(images)
        part = write_part(self._index, record, descriptors)
        self.catalogue.add_part(part, to_array(images.digests))
        return part

    def _merge_small(self) -> None:
        """Merges parts that are less than half in use, where there are many."""
        most, parts = self._limits.rows, self.catalogue.parts()
        small = [part for part in parts if np.count_nonzero(part.live) < most // 2]
        if len(small) <= self._limits.small:
            return
        places = [
            (part.name, row)
            for part in small
            for row in np.flatnonzero(part.live).tolist()
        ]
        photos: dict[tuple[str, int], list[PhotoEntry]] = {}
        for part in small:
            for entry in self.catalogue.photos_in(part.name):
                photos.setdefault((entry.part, entry.row), []).append(entry)
        for start in range(0, len(places), most):
            moved = places[start : start + most]
            name = self._write_part(*take_rows(self._index, moved))
            self.catalogue.put(
                entry._replace(part=name, row=row)
                for row, place in enumerate(moved)
                for entry in photos[place]
            )
        self.commit()
        sweep(self._index)


def sweep(index: Path) -> None:
    """Removes parts and weights that no catalogue refers to, if all can be read."""
    kept: set[str] = set()
    for file in (FILE, REBUILD):
        if (index / file).exists():
            try:
                with open_catalogue(index, file) as catalogue:
                    kept |= {catalogue.model.copy, *_names(catalogue)}
            except UserError:
                return
    for kind in (PARTS, WEIGHTS):
        for name in names_in(index / kind) - kept:
            # Only what has a name as `secrets.token_hex(8)` gives it.
            if re.fullmatch("[0-9a-f]{16}", name):
                remove_folder(index / kind / name)


def _names(catalogue: Catalogue) -> set[str]:
    return {part.name for part in catalogue.parts()}
