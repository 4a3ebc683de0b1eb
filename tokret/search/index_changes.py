"""Adding some photos to an index and removing some, without listing its folder.

The cost is that of the photos which are added or removed, not of the whole index.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from tokret.data.folders import PhotoWalk
from tokret.errors import UserError
from tokret.search.catalogue import FILE, WEIGHTS, open_catalogue
from tokret.search.catalogue_rows import NO_PART, PhotoEntry
from tokret.search.catalogue_writing import CatalogueWriter, writing
from tokret.search.extractor import Extractor, damaged_copy
from tokret.search.index_folder import locked
from tokret.search.index_writer import IndexWriter, Limits, sweep
from tokret.search.photo_extraction import add_photos
from tokret.search.photo_listing import batched
from tokret.search.photos import Stamp, read_digest, read_stamp


@dataclasses.dataclass(frozen=True)
class Added:
    """What became of photos that were to be added."""

    new: int  # photos whose descriptors were extracted
    known: int  # photos whose content the index had
    bad: Mapping[str, str]  # why photos could not be added, by name
    ids: Mapping[str, str]  # digests of the others, by name


def add_files(
    index: Path,
    paths: Sequence[str | Path],
    load: Callable[[Path], Extractor],
    *,
    root: Path | None = None,
    limits: Limits = Limits(),  # noqa: B008 (frozen)
) -> Added:
    """Adds photos to an index, or replaces what it has of these files.

    Photos that were removed from the index before are taken in again.

    Args:
      index: the index's folder.
      paths: of the photos, which are below the root already; absolute, or relative to
        it.
      load: restores the model, given the folder of the index's own copy of it.
      root: the folder where the index's photos are now; None: where they were indexed.
      limits: the sizes of parts and photos.

    Raises:
      UserError: there is no index, another process updates it, a path is not that of a
        photo below the root, or a file cannot be written.
    """
    with _changing(index) as (catalogue, is_held):
        folder = Path(catalogue.root) if root is None else root
        stamps = {name: read_stamp(folder / name) for name in _names(folder, paths)}
        copy = index / WEIGHTS / catalogue.model.copy
        extractor = load(copy)
        if difference := extractor.model.difference(catalogue.model):
            raise damaged_copy(copy, f"{copy}: {difference}")
        _readmit(catalogue, folder, stamps)
        writer = IndexWriter(index, catalogue, extractor, limits, is_held)
        some = (dict(each) for each in batched(stamps.items()))
        new, known = add_photos(writer, extractor, folder, some, len(stamps), limits)
        found = catalogue.photos(stamps)
        bad = {entry.name: entry.error for entry in found if entry.error}
        catalogue.drop(bad)
        writer.finish()
    ids = {entry.name: entry.digest for entry in found if not entry.error}
    return Added(new, known, bad, ids)


def remove_photos(
    index: Path,
    digests: Sequence[str],
    *,
    delete_files: bool = False,
    root: Path | None = None,
) -> list[PhotoEntry]:
    """Removes photos from an index, by their contents.

    Their files stay, and updates skip them, unless they are deleted too. A file that
    has changed since it was indexed, or is not in the root itself, is not deleted.

    Args:
      index: the index's folder.
      digests: of the photos, 16 hexadecimal digits; unknown ones are skipped.
      delete_files: whether the photos' files are deleted.
      root: the folder where the index's photos are now; None: where they were indexed.

    Returns:
      The entries that were removed; copies of a photo have one each.

    Raises:
      UserError: there is no index, another process updates it, or a file cannot be
        written or deleted.
    """
    with _changing(index) as (catalogue, is_held):
        removed = [entry for entry in catalogue.known(digests) if entry.part]
        catalogue.put(entry._replace(part=NO_PART, row=0) for entry in removed)
        _commit(index, catalogue, is_held)
        if delete_files:
            # Not before: what has no file must not be found.
            folder = Path(catalogue.root) if root is None else root
            for entry in removed:
                _delete(folder, entry)
                catalogue.drop([entry.name])
            _commit(index, catalogue, is_held)
        sweep(index)
    return sorted(removed)


@contextlib.contextmanager
def _changing(index: Path) -> Iterator[tuple[CatalogueWriter, Callable[..., bool]]]:
    with open_catalogue(index):  # an index, else the folder would be made
        pass
    with locked(index) as is_held:
        with open_catalogue(index) as found:
            root, model = found.root, found.model
        with writing(index, root, FILE, model) as catalogue:
            yield catalogue, is_held


def _commit(
    index: Path, catalogue: CatalogueWriter, is_held: Callable[..., bool]
) -> None:
    if catalogue.is_changed and not is_held(now=True):
        raise UserError(
            f"index={index}: its lock was removed or taken by another process, so "
            "nothing was removed; try again"
        )
    catalogue.commit()


def _names(root: Path, paths: Sequence[str | Path]) -> list[str]:
    """The paths of photos relative to the root, as a listing of it has them."""
    walk = PhotoWalk(root)
    names = set()
    for path in paths:
        whole = root / path
        base = root if whole.is_relative_to(root) else root.resolve()
        if not whole.is_relative_to(base) or ".." in whole.parts or whole == base:
            raise UserError(f"{path} is not below {root}, the folder of the index")
        name = whole.relative_to(base)
        parts = [root / each for each in (name, *name.parents[:-1])]
        if not all(map(walk.accepts, parts)) or not walk.is_photo(whole):
            raise UserError(f"{path} is not indexed: its name is not that of a photo")
        if not whole.is_file():
            raise UserError(f"{path}: missing, or no file")
        names.add(name.as_posix())
    return sorted(names)


def _readmit(
    catalogue: CatalogueWriter, root: Path, stamps: Mapping[str, Stamp]
) -> None:
    """Drops what is noted of these photos as removed."""
    digests = [read_digest(root / name) for name in stamps]
    found = catalogue.known({digest for digest in digests if digest})
    catalogue.drop([entry.name for entry in found if entry.is_removed])


def _delete(root: Path, entry: PhotoEntry) -> None:
    path = root / entry.name
    inside = path.parent.resolve().is_relative_to(root.resolve())
    if not inside or read_stamp(path) != entry.stamp:
        return
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be deleted: {error.strerror}; but it left the index"
        ) from error
