"""Updates an index from its folder: adds new photos and removes those that are gone.

A photo is known by its content. Descriptors are written in parts as they are extracted,
and the catalogue after each: a process that is killed loses what is in no part yet,
whatever happens to the folder before the next one starts. The index has a copy of its
model's weights, so that further training does not change it.
"""

import collections
import contextlib
import dataclasses
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from tokret.errors import UserError
from tokret.io.remote.urls import shown
from tokret.runtime.ending import keeps
from tokret.search.catalogue import FILE, PARTS, WEIGHTS, open_catalogue
from tokret.search.catalogue_rows import ModelInfo, PhotoEntry, check_root
from tokret.search.catalogue_writing import CatalogueWriter, writing
from tokret.search.extractor import Extractor, copy_problem, damaged_copy, save_copy
from tokret.search.index_folder import NOTHING_KEPT, locked
from tokret.search.index_writer import REBUILD, IndexWriter, Limits
from tokret.search.part_stores import open_parts
from tokret.search.photo_extraction import add_photos, recognised
from tokret.search.photo_listing import Listing, batched, merged


@dataclasses.dataclass(frozen=True)
class Change:
    """The changes of an update."""

    photos: int  # in the index now
    new: int  # photos whose descriptors were extracted, also because they changed
    known: int  # photos that were moved, copied or touched, known by their content
    gone: int  # photos whose content is in no photo any more
    removed: int  # photos that were removed from the index and stay out of it
    bad: Mapping[str, str]  # why photos have no descriptor, by name
    damaged: Sequence[str]  # why parts could not be used; they were extracted again
    is_first: bool = False  # whether there was no index before


def update_index(
    root: Path,
    index: Path,
    load: Callable[[Path | None], Extractor],
    *,
    moved: bool = False,
    rebuild: bool = False,
    rehash: bool = False,
    readd: bool = False,
    limits: Limits = Limits(),  # noqa: B008 (frozen)
    chosen: Callable[[str], bool] = lambda path: True,
    log: Callable[[str], object] = lambda _: None,
) -> Change:
    """Creates or updates an index; after a kill the same call resumes.

    Args:
      root: the folder of photos.
      index: the index's folder, created if it is missing.
      load: restores the model, given the folder of the index's own copy of it; None for
        a new index.
      moved: whether the photos of the index are in another folder now, `root`. It
        must have at least half of them, and not be inside the folder that was indexed.
      rebuild: whether all descriptors are extracted again, by any model. Until that is
        complete, queries are answered by the old ones.
      rehash: whether all photos are read, also those whose size and time have not
        changed.
      readd: whether photos that were removed from the index, and are still in the
        folder, are taken in again.
      limits: the sizes of parts and photos.
      chosen: which photos of the folder are taken, by their paths relative to it.
      log: called with notes on the photos' folders and on what is skipped, first.

    Raises:
      UserError: the index is another folder's or another model's, another process
        updates it, no photo can be read, or a file cannot be written. A new index
        leaves no files then.
    """
    keeps(NOTHING_KEPT)
    root = root.expanduser().resolve()
    try:
        check_root(str(root))
    except ValueError as error:
        raise UserError(f"{error}; rename the folder") from error
    with contextlib.closing(Listing(root, chosen)) as listing:
        if not listing.num_photos:
            others = "".join(f"; {note}" for note in listing.notes)
            raise UserError(f"{root} has no photo; name a folder that has{others}")
        for note in listing.notes:
            log(f"note: {note}")
        with locked(index) as is_held:
            old = _existing(index, rebuild)
            if old is not None and old.root != str(root):
                _check_moved(index, old.root, root, listing, moved)
            extractor = load(_own_copy(index, old))
            start = _started(index, old, root, extractor, rebuild)
            with writing(index, str(root), *start) as catalogue:
                if old is not None and rebuild:
                    catalogue.put(old.removed)
                    catalogue.set_engines(old.engines)
                if readd:
                    catalogue.drop([entry.name for entry in catalogue.removed()])
                damaged, number = _compare(index, catalogue, listing, rehash)
                writer = IndexWriter(index, catalogue, extractor, limits, is_held)
                new, known = add_photos(
                    writer, extractor, root, listing.changed(), number, limits
                )
                gone = writer.finish(listing.gone())
                return Change(
                    catalogue.num_photos(),
                    new,
                    known,
                    gone,
                    catalogue.num_removed(),
                    catalogue.errors(),
                    damaged,
                    old is None,
                )


class _Old(NamedTuple):
    """The index before an update."""

    root: str
    model: ModelInfo
    removed: list[PhotoEntry]
    engines: Mapping[str, Any]


def _existing(index: Path, rebuild: bool) -> _Old | None:
    """Reads the catalogue; None for a new index, or a damaged one to be rebuilt."""
    if not (index / FILE).exists():
        return None
    try:
        with open_catalogue(index) as catalogue:
            catalogue.check()
            removed = catalogue.removed()
            return _Old(catalogue.root, catalogue.model, removed, catalogue.engines)
    except UserError:
        if rebuild:
            return None
        raise


def _compare(
    index: Path, catalogue: CatalogueWriter, listing: Listing, rehash: bool
) -> tuple[list[str], int]:
    """Compares the index with its parts and with the folder; drops damaged parts.

    Returns why they are damaged, and how many photos are new or changed.
    """
    _, damaged = open_parts(index, catalogue)
    dropped: list[str] = []
    while True:
        for part in damaged:
            catalogue.drop_part(part)
        dropped += damaged.values()
        damaged = {}
        entries = _compared(index, catalogue, damaged)
        number = listing.compare(entries, rehash)
        if not damaged:
            return dropped, number


def _compared(
    index: Path, catalogue: CatalogueWriter, damaged: dict[str, str]
) -> Iterator[PhotoEntry]:
    """Yields all photos; notes the parts whose rows are not of their photos."""
    parts = {part.name: part for part in catalogue.parts()}
    unseen = {name: part.live.copy() for name, part in parts.items()}
    for entry in catalogue.entries():
        if entry.part and not parts[entry.part].has(entry):
            where = f"{index / PARTS / entry.part}: row {entry.row}"
            damaged[entry.part] = f"{where} is not of {entry.name}"
        elif entry.part:
            unseen[entry.part][entry.row] = False
        yield entry
    for name, rows in unseen.items():
        if rows.any():
            row = int(np.argmax(rows))
            where = f"{index / PARTS / name}: row {row}"
            damaged.setdefault(name, f"{where} is not of any photo")


def _own_copy(index: Path, old: _Old | None) -> Path | None:
    """The index's copy of the weights; of a damaged index the only one, if it is."""
    if old is not None:
        return index / WEIGHTS / old.model.copy
    if not (index / FILE).exists():
        return None
    copies = [*(index / WEIGHTS).glob("[0-9a-f]" * 16)]
    return copies[0] if len(copies) == 1 else None


def _check_moved(
    index: Path, old: str, root: Path, listing: Listing, moved: bool
) -> None:
    """Refuses another folder than the index's, unless its photos have moved there."""
    inside = root.is_relative_to(old)
    if not moved and not inside:
        raise UserError(
            f"moved: index={index} is of the photos in {old}; set this if they "
            f"are in {root} now, or name another index"
        )
    missing, total = _count_missing(index, root, listing)
    lacks = f"{missing:,} of the {total:,} photos of index={index}"
    if inside:
        raise UserError(
            f"{root} is inside {old}, and lacks {lacks}, by path and by content; "
            "name the library's folder, or another index"
        )
    if 2 * missing > total:
        raise UserError(
            f"moved: {root} lacks {lacks}, by path and by content; name the folder "
            "that has them, or another index"
        )


def _count_missing(index: Path, root: Path, listing: Listing) -> tuple[int, int]:
    """How many photos of an index a folder lacks, and how many the index has."""
    total, missing = 0, collections.Counter[str]()
    with open_catalogue(index) as catalogue:
        for _, stamp, entry in merged(listing.stamps(), catalogue.entries()):
            total += entry is not None
            if entry is not None and stamp is None:
                missing[entry.digest] += 1
        for some in batched(listing.stamps()) if missing else ():
            for entry in recognised(catalogue, root, dict(some)).values():
                missing.pop(entry.digest, None)
    return missing.total(), total


class _Start(NamedTuple):
    """The catalogue that an update writes."""

    file: str
    model: ModelInfo
    is_new: bool


def _started(
    index: Path, old: _Old | None, root: Path, extractor: Extractor, rebuild: bool
) -> _Start:
    if old is not None and not rebuild:
        difference = extractor.model.difference(old.model)
        own = index / WEIGHTS / old.model.copy
        if difference and extractor.model.checkpoint == shown(own.resolve()):
            problem = copy_problem(own, old.model)
            if problem:
                raise damaged_copy(own, problem)
        if difference:
            raise UserError(
                f"rebuild: index={index} was made by another model ({difference}); set "
                "this to extract all its descriptors again by this one, or name "
                "neither checkpoint, longest_side nor scales to keep its own"
            )
        return _Start(FILE, _with_copy(index, old.model, extractor), False)
    if old is not None and (index / REBUILD).exists():
        with contextlib.suppress(UserError), open_catalogue(index, REBUILD) as earlier:
            is_same = not extractor.model.difference(earlier.model)
            if earlier.root == str(root) and is_same:
                earlier.check()
                model = _with_copy(index, earlier.model, extractor)
                return _Start(REBUILD, model, False)
    model = _with_new_copy(index, extractor.model, extractor)
    return _Start(REBUILD if old else FILE, model, True)


def _with_copy(index: Path, model: ModelInfo, extractor: Extractor) -> ModelInfo:
    """A model whose copy of the weights is whole: its own, or a new one."""
    folder = index / WEIGHTS / model.copy
    if extractor.model.checkpoint == shown(folder.resolve()):
        return model  # just restored
    if copy_problem(folder, model) is None:
        return model
    return _with_new_copy(index, model, extractor)


def _with_new_copy(index: Path, model: ModelInfo, extractor: Extractor) -> ModelInfo:
    copy = secrets.token_hex(8)
    save_copy(extractor, index / WEIGHTS / copy)
    return msgspec.structs.replace(model, copy=copy)
