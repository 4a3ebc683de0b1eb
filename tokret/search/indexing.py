"""Keeping an index true to a folder: what is new comes in, what is gone goes out."""

import contextlib
import dataclasses
import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from tokret.errors import UserError
from tokret.io.file_locks import held
from tokret.retrieval.store.reading import Store, read_store
from tokret.retrieval.store.record import Images
from tokret.retrieval.store.writing import NothingReadableError, making
from tokret.search.catalogue import (
    FILE,
    NO_PART,
    Catalogue,
    Entry,
    read_catalogue,
    write_catalogue,
)
from tokret.search.extractor import Describer
from tokret.search.photos import PhotoViews, Stamp, find_photos

PARTS = "parts"
AT_ONCE = 4096  # photos of a part; their bytes are read one by one
MOST_PARTS = 16  # more are made into one
_COPIED = 4096  # rows at once


@dataclasses.dataclass(frozen=True)
class Change:
    """What an update did.

    Attributes:
      photos: in the index now.
      new: photos described, those that changed among them.
      gone: photos that are no longer there.
      bad: why photos could not be described, by name.
      others: files below the folder that are not photos by their names.
    """

    photos: int
    new: int
    gone: int
    bad: Mapping[str, str]
    others: int


def update_index(
    root: Path,
    index: Path,
    describer: Callable[[Path], Describer],
    at_once: int = AT_ONCE,
) -> Change:
    """Makes an index, or brings it up to date; after a kill the same call goes on.

    Args:
      root: the folder of photos.
      index: the index's folder, made where it is missing.
      describer: makes the model, given the folder of the index's parts.
      at_once: photos of a part.

    Returns:
      What changed.

    Raises:
      UserError: the index is another folder's or another model's, another process is
        at it, or a disk fails.
    """
    root = root.expanduser().resolve()
    there, others = find_photos(root)
    with _alone(index):
        old = read_catalogue(index) if (index / FILE).exists() else None
        if old is not None and old.root != str(root):
            raise UserError(
                f"--index={index} is an index of {old.root}; name that folder, or "
                "another index"
            )
        made = describer(index / PARTS)
        catalogue = _begin(index, old, str(root), made)
        same = {
            name: entry
            for name, entry in catalogue.photos.items()
            if there.get(name) == entry.stamp
        }
        gone = len(catalogue.photos.keys() - there.keys())
        left = [name for name in there if name not in same]
        if not there:
            raise UserError(f"{root} holds no photo; name a folder that does")
        catalogue = dataclasses.replace(catalogue, photos=same)
        for start in range(0, len(left), at_once):
            names = left[start : start + at_once]
            added = _describe(root, names, there, made)
            catalogue = _with(catalogue, added)
            write_catalogue(index, catalogue)
        if gone and not left:
            write_catalogue(index, catalogue)
        catalogue = _tidied(index, catalogue, made)
    bad = {name: entry.why for name, entry in catalogue.photos.items() if entry.why}
    return Change(len(catalogue.photos) - len(bad), len(left), gone, bad, others)


@contextlib.contextmanager
def _alone(index: Path) -> Iterator[None]:
    """Makes the folder, and holds it against other processes."""
    if index.exists() and not index.is_dir():
        raise UserError(f"--index={index} is a file; name a folder")
    if index.exists() and not (index / FILE).exists():
        strange = {path.name for path in index.iterdir()} - {PARTS, ".lock"}
        if strange:
            raise UserError(
                f"--index={index} holds other files, such as {min(strange)}; name an "
                "empty folder, or one that is not there yet"
            )
    index.mkdir(parents=True, exist_ok=True)
    refusal = f"--index={index}: another process is at it; wait for it"
    with held(index / ".lock", refusal):
        yield


def _begin(index: Path, old: Catalogue | None, root: str, made: Describer) -> Catalogue:
    if old is None:
        return Catalogue(root, made.maker, {})
    found = made.maker.difference(old.maker)
    if found:
        raise UserError(
            f"--index={index} was made otherwise ({found}); name another index, or "
            "remove this one"
        )
    return dataclasses.replace(old, maker=made.maker)


def _describe(
    root: Path, names: list[str], stamps: Mapping[str, Stamp], made: Describer
) -> dict[str, Entry]:
    """Describes photos into a store of their own."""
    # The same photos give the same store: one that a kill left unfinished is gone on
    # with, and one of photos that changed since is not.
    digest = hashlib.sha256(repr([(n, *stamps[n]) for n in names]).encode())
    part = digest.hexdigest()[:16]
    views = PhotoViews(root, names, made.maker.longest_side)
    try:
        bad = made.system({part: views})[part].bad
    except NothingReadableError:
        part, bad = NO_PART, {row: _reason(views, row) for row in range(len(names))}
    return {
        name: Entry(part, row, stamps[name], bad.get(row, ""))
        for row, name in enumerate(names)
    }


def _reason(views: PhotoViews, row: int) -> str:
    try:
        views[row].pixels()
    except UserError as error:
        return str(error)
    return f"{views.names[row]} changed while it was read"


def _with(catalogue: Catalogue, added: Mapping[str, Entry]) -> Catalogue:
    return dataclasses.replace(catalogue, photos={**catalogue.photos, **added})


def _tidied(index: Path, catalogue: Catalogue, made: Describer) -> Catalogue:
    """Makes one store of many, or of one that is mostly gone; removes the others."""
    parts = catalogue.parts()
    stores = {part: read_store(index / PARTS / part) for part in parts}
    rows = sum(len(store.names) for store in stores.values())
    if len(parts) > MOST_PARTS or rows > 2 * len(catalogue.photos):
        catalogue = _merged(index, catalogue, stores, made)
        write_catalogue(index, catalogue)
    kept = set(catalogue.parts())
    if (index / PARTS).is_dir():
        for folder in (index / PARTS).iterdir():
            if folder.name not in kept:
                shutil.rmtree(folder)
    return catalogue


def _merged(
    index: Path, catalogue: Catalogue, stores: Mapping[str, Store], made: Describer
) -> Catalogue:
    entries = {n: e for n, e in sorted(catalogue.photos.items()) if e.part != NO_PART}
    places = [(entry.part, entry.row) for entry in entries.values()]
    columns = [
        tuple(getattr(stores[part].record.images, field)[row] for part, row in places)
        for field in ("names", "sizes", "boxes", "digests")
    ]
    part = hashlib.sha256(repr(places).encode()).hexdigest()[:16]
    with making(index / PARTS / part, made.system.record(Images(*columns))) as writer:
        left = np.flatnonzero(~writer.finished)
        whys = [entry.why for entry in entries.values()]
        for start in range(0, len(left), _COPIED):
            rows = left[start : start + _COPIED]
            copied = np.stack(
                [stores[p].descriptors[row] for p, row in (places[i] for i in rows)]
            )
            writer.write(rows, copied, {int(i): whys[i] for i in rows if whys[i]})
        writer.finish()
    photos = {
        name: entry._replace(part=part, row=row)
        for row, (name, entry) in enumerate(entries.items())
    }
    return _with(catalogue, photos)
