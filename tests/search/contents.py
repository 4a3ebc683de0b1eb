"""Everything a catalogue has, for tests to compare."""

import contextlib
import dataclasses
import sqlite3
from typing import Any

from tokret.search import catalogue_schema
from tokret.search.catalogue import FILE, open_catalogue
from tokret.search.catalogue_rows import ModelInfo, PhotoEntry
from tokret.search.catalogue_writing import CatalogueWriter


@dataclasses.dataclass(frozen=True)
class Contents:
    root: str
    model: ModelInfo
    engines: dict[str, Any]
    photos: dict[str, PhotoEntry]
    parts: dict[str, list[int]]  # the rows in use

    def live_rows(self):
        """By part and row, the photos."""
        live: dict[str, dict[int, list[str]]] = {}
        for name, entry in self.photos.items():
            if entry.part:
                live.setdefault(entry.part, {}).setdefault(entry.row, []).append(name)
        return live


def read_catalogue(folder, file=FILE):
    """Reads all of it, in every way that there is, and compares these."""
    with open_catalogue(folder, file) as catalogue:
        catalogue.check()
        photos = {entry.name: entry for entry in catalogue.entries()}
        parts = {
            part.name: [i for i, live in enumerate(part.live) if live]
            for part in catalogue.parts()
        }
        found = Contents(
            catalogue.root, catalogue.model, catalogue.engines, photos, parts
        )
        good = {name for name, entry in photos.items() if entry.part}
        live = {part: sorted(rows) for part, rows in found.live_rows().items()}
        assert live == parts
        assert catalogue.num_photos() == len(good)
        everywhere = catalogue.rows_of()
        assert {part: rows.tolist() for part, rows in everywhere.items()} == live
        assert sum(catalogue.labels().values()) == len(good)
        assert catalogue.errors() == {n: e.error for n, e in photos.items() if e.error}
        digests = {photos[name].digest for name in good}
        with_digests = catalogue.photos_with(digests)
        assert {e.name for each in with_digests.values() for e in each} == good
        assert catalogue.photo(min(photos, default="none")) == (
            photos[min(photos)] if photos else None
        )
    return found


def change_rows(folder, *statements, file=FILE):
    """Changes a catalogue as it is on the disk."""
    with contextlib.closing(sqlite3.connect(folder / file)) as connection:
        with connection:
            for words in statements:
                connection.execute(words)


@contextlib.contextmanager
def tampered(folder):
    """Yields the photos; writes what is changed of them, with right checksums.

    What the parts note of their rows stays as it is.
    """
    before = read_catalogue(folder)
    photos = dict(before.photos)
    yield photos
    connection = catalogue_schema.open_file(folder / FILE, write=True)
    with contextlib.closing(connection):
        writer = CatalogueWriter(folder / FILE, connection, folder / FILE)
        writer.drop(before.photos.keys() - photos.keys())
        writer.put(
            entry for name, entry in photos.items() if before.photos[name] != entry
        )
        writer._released = {}
        writer.commit()
