"""Updates an index from its folder: adds new photos and removes those that are gone."""

import contextlib
import dataclasses
import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from tokret.data.views import View
from tokret.errors import UserError
from tokret.io.file_locks import held
from tokret.retrieval.store.reading import Store, read_store
from tokret.retrieval.store.record import Images
from tokret.retrieval.store.writing import NoReadablePhotoError, write_store
from tokret.search.catalogue import (
    FILE,
    NO_SEGMENT,
    Catalogue,
    PhotoEntry,
    read_catalogue,
    write_catalogue,
)
from tokret.search.extractor import Extractor
from tokret.search.photos import Stamp, find_photos, photo_views

SEGMENTS = "segments"
SEGMENT_SIZE = 4096  # photos of a segment; their bytes are read one by one
MAX_SEGMENTS = 16  # more are merged into one
_COPIED = 4096  # rows at once


@dataclasses.dataclass(frozen=True)
class Change:
    """The changes of an update."""

    photos: int  # in the index now
    new: int  # photos whose descriptors were extracted, also because they changed
    gone: int  # photos that were removed
    bad: Mapping[str, str]  # why photos have no descriptor, by name
    notes: Sequence[str]  # on the photos' folders, and on what was skipped


def update_index(
    root: Path,
    index: Path,
    load: Callable[[Path], Extractor],
    segment_size: int = SEGMENT_SIZE,
) -> Change:
    """Creates or updates an index; after a kill the same call resumes.

    Args:
      root: the folder of photos.
      index: the index's folder, created if it is missing.
      load: restores the model, given the folder of the index's segments.
      segment_size: photos of a segment.

    Raises:
      UserError: the index is another folder's or another model's, another process
        updates it, or a file cannot be read or written.
    """
    root = root.expanduser().resolve()
    found, notes = find_photos(root)
    with _locked(index):
        old = read_catalogue(index) if (index / FILE).exists() else None
        if old is not None and old.root != str(root):
            raise UserError(
                f"index={index} is an index of {old.root}; name that folder, or "
                "another index"
            )
        extractor = load(index / SEGMENTS)
        catalogue = _opened(index, old, str(root), extractor)
        same = {
            name: entry
            for name, entry in catalogue.photos.items()
            if found.get(name) == entry.stamp
        }
        gone = len(catalogue.photos.keys() - found.keys())
        new = [name for name in found if name not in same]
        if not found:
            others = "".join(f"; {note}" for note in notes)
            raise UserError(f"{root} has no photo; name a folder that has{others}")
        catalogue = msgspec.structs.replace(catalogue, photos=same)
        for start in range(0, len(new), segment_size):
            names = new[start : start + segment_size]
            added = _extract_segment(root, names, found, extractor)
            photos = catalogue.photos | added
            catalogue = msgspec.structs.replace(catalogue, photos=photos)
            write_catalogue(index, catalogue)
        if gone and not new:
            write_catalogue(index, catalogue)
        catalogue = _compacted(index, catalogue, extractor)
    bad = catalogue.errors()
    return Change(len(catalogue.photos) - len(bad), len(new), gone, bad, notes)


@contextlib.contextmanager
def _locked(index: Path) -> Iterator[None]:
    """Creates the folder, and locks it against other processes."""
    if index.exists() and not index.is_dir():
        raise UserError(f"index={index} is a file; name a folder")
    if index.exists() and not (index / FILE).exists():
        strange = {path.name for path in index.iterdir()} - {SEGMENTS, ".lock"}
        if strange:
            raise UserError(
                f"index={index} has other files, such as {min(strange)}; name an empty "
                "folder, or one that does not exist yet"
            )
    index.mkdir(parents=True, exist_ok=True)
    refusal = f"index={index}: another process is updating it; wait for it"
    with held(index / ".lock", refusal):
        yield


def _opened(
    index: Path, old: Catalogue | None, root: str, extractor: Extractor
) -> Catalogue:
    if old is None:
        return Catalogue(root, extractor.model, {})
    difference = extractor.model.difference(old.model)
    if difference:
        raise UserError(
            f"index={index} is of another model ({difference}); name another index, or "
            "remove this one"
        )
    return msgspec.structs.replace(old, model=extractor.model)


def _extract_segment(
    root: Path,
    names: Sequence[str],
    stamps: Mapping[str, Stamp],
    extractor: Extractor,
) -> dict[str, PhotoEntry]:
    """Extracts the descriptors of photos into a store of their own."""
    # The same photos have the same store: extraction resumes in one that a kill left
    # unfinished, but not in one of photos that have changed since.
    segment = _hash([(name, *stamps[name]) for name in names])
    views = photo_views(root, names, extractor.model.longest_side)
    try:
        bad = extractor.system({segment: views})[segment].bad
    except NoReadablePhotoError:
        segment = NO_SEGMENT
        bad = {row: _reason(views[row]) for row in range(len(names))}
    return {
        name: PhotoEntry(segment, row, stamps[name], bad.get(row, ""))
        for row, name in enumerate(names)
    }


def _reason(view: View) -> str:
    try:
        view.pixels()
    except UserError as error:
        return str(error)
    return f"{view.name} changed while it was read"


def _hash(values: Sequence[tuple[object, ...]]) -> str:
    return hashlib.sha256(repr(values).encode()).hexdigest()[:16]


def _compacted(index: Path, catalogue: Catalogue, extractor: Extractor) -> Catalogue:
    """Merges many segments, or mostly unused ones, into one; removes unused ones."""
    segments = catalogue.segments()
    stores = {segment: read_store(index / SEGMENTS / segment) for segment in segments}
    rows = sum(len(store.names) for store in stores.values())
    if len(segments) > MAX_SEGMENTS or rows > 2 * len(catalogue.photos):
        catalogue = _merged(index, catalogue, stores, extractor)
        write_catalogue(index, catalogue)
    kept = set(catalogue.segments())
    if (index / SEGMENTS).is_dir():
        for folder in (index / SEGMENTS).iterdir():
            if folder.name not in kept:
                shutil.rmtree(folder)
    return catalogue


def _merged(
    index: Path,
    catalogue: Catalogue,
    stores: Mapping[str, Store],
    extractor: Extractor,
) -> Catalogue:
    entries = {
        name: entry
        for name, entry in sorted(catalogue.photos.items())
        if entry.segment != NO_SEGMENT
    }
    places = [(entry.segment, entry.row) for entry in entries.values()]
    errors = [entry.error for entry in entries.values()]
    columns = [
        tuple(getattr(stores[name].record.images, field)[row] for name, row in places)
        for field in ("names", "sizes", "boxes", "digests")
    ]
    segment = _hash(places)
    record = extractor.system.record(Images(*columns))
    with write_store(index / SEGMENTS / segment, record) as writer:
        missing = np.flatnonzero(~writer.finished)
        for start in range(0, len(missing), _COPIED):
            rows = missing[start : start + _COPIED]
            copied = np.stack(
                [stores[name].descriptors[i] for name, i in (places[r] for r in rows)]
            )
            writer.write(rows, copied, {int(r): errors[r] for r in rows if errors[r]})
        writer.finish()
    photos = {
        name: msgspec.structs.replace(entry, segment=segment, row=row)
        for row, (name, entry) in enumerate(entries.items())
    }
    photos = catalogue.photos | photos
    return msgspec.structs.replace(catalogue, photos=photos)
