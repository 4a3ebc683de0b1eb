"""Updates an index from its folder: adds new photos and removes those that are gone.

A photo is known by its content. Descriptors are written in parts as they are extracted,
and the catalogue after each: a process that is killed loses what is in no part yet,
whatever happens to the folder before the next one starts. The index has a copy of its
model's weights, so that further training does not change it.
"""

import contextlib
import dataclasses
import functools
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from tokret.errors import UserError
from tokret.io.file_locks import held
from tokret.io.remote.outputs import names_in, prepare_folder
from tokret.io.remote.retrying import UnavailableError, at_once
from tokret.io.remote.urls import shown, url_of
from tokret.runtime.ending import keeps
from tokret.search.catalogue import (
    FILE,
    LOCK,
    PARTS,
    WEIGHTS,
    Catalogue,
    ModelInfo,
    check_root,
    read_catalogue,
)
from tokret.search.extractor import Extractor, copy_problem, damaged_copy, save_copy
from tokret.search.index_writer import (
    DRAFT,
    REBUILD,
    IndexWriter,
    Limits,
    sweep,
)
from tokret.search.photo_extraction import add_photos, recognised
from tokret.search.photos import Stamp, find_photos
from tokret.search.remote_index import fetch_index

NOTHING_KEPT = "nothing was extracted yet; the same command starts again"


@dataclasses.dataclass(frozen=True)
class Change:
    """The changes of an update."""

    photos: int  # in the index now
    new: int  # photos whose descriptors were extracted, also because they changed
    known: int  # photos that were moved, copied or touched, known by their content
    gone: int  # photos whose content is in no photo any more
    bad: Mapping[str, str]  # why photos have no descriptor, by name
    damaged: Sequence[str]  # why parts could not be used; they were extracted again


def update_index(
    root: Path,
    index: Path,
    load: Callable[[Path | None], Extractor],
    *,
    moved: bool = False,
    rebuild: bool = False,
    rehash: bool = False,
    limits: Limits = Limits(),  # noqa: B008 (frozen)
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
      limits: the sizes of parts and photos.
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
    found, notes = find_photos(root)
    if not found:
        others = "".join(f"; {note}" for note in notes)
        raise UserError(f"{root} has no photo; name a folder that has{others}")
    for note in notes:
        log(f"note: {note}")
    with _prepared(index) as is_held:
        old = _existing(index, rebuild)
        if old is not None and old.root != str(root):
            _check_moved(index, old, root, found, moved)
        extractor = load(_own_copy(index, old))
        file, catalogue = _started(index, old, root, extractor, rebuild)
        writer = IndexWriter(index, file, catalogue, extractor, limits, is_held)
        same = {
            name
            for name, entry in writer.photos.items()
            if found.get(name) == entry.stamp and not rehash
        }
        changed = {name: found[name] for name in found if name not in same}
        new, known = add_photos(writer, extractor, root, changed, limits)
        gone = writer.finish(found)
    bad = {name: entry.error for name, entry in writer.photos.items() if entry.error}
    photos = len(writer.photos) - len(bad)
    return Change(photos, new, known, gone, bad, writer.damaged)


@contextlib.contextmanager
def _prepared(index: Path) -> Iterator[Callable[..., bool]]:
    """Creates the folder, locks it against other processes, and sweeps it.

    If it is no index in the end, what was made is removed. Yields what returns whether
    the lock is still held.
    """
    if url_of(index) is not None:
        prepare_folder(index, "index")
    try:
        if index.exists() and not index.is_dir():
            raise UserError(f"index={index} is a file; name a folder")
        names = names_in(index)
        if names and FILE not in names:
            # Of a process that was killed, which had made the lock first; a lease may
            # be gone.
            is_left = LOCK in names or url_of(index) is not None
            strange = names - ({PARTS, WEIGHTS, LOCK, DRAFT} if is_left else set())
            if strange:
                raise UserError(
                    f"index={index} has other files, such as {min(strange)}; name an "
                    "empty folder, or one that does not exist yet"
                )
        made = [path for path in (index, *index.parents) if not path.exists()]
        index.mkdir(parents=True, exist_ok=True)
        (index / LOCK).touch()
    except OSError as error:
        raise UserError(
            f"index={index} cannot be made: {error.strerror}; name another folder"
        ) from error
    refusal = f"index={index}: another process is updating it; wait for it"
    with held(index / LOCK, refusal) as is_held:
        remove = functools.partial(_remove_unless_index, index, made, is_held)
        if FILE not in names:  # before, another process may be making it
            keeps(NOTHING_KEPT, remove)
        try:
            fetch_index(index, FILE, REBUILD)
            sweep(index)
            yield is_held
        finally:
            remove()


def _remove_unless_index(
    index: Path, made: Sequence[Path], is_held: Callable[..., bool]
) -> None:
    if (index / FILE).exists() or not _is_surely(is_held):
        return
    with contextlib.suppress(UnavailableError), at_once():
        sweep(index)
    for name in (DRAFT, LOCK):
        (index / name).unlink(missing_ok=True)
    for folder in (index / PARTS, index / WEIGHTS, *made):
        with contextlib.suppress(OSError):
            folder.rmdir()


def _is_surely(is_held: Callable[..., bool]) -> bool:
    with contextlib.suppress(UserError), at_once():
        return is_held(now=True)
    return False


def _existing(index: Path, rebuild: bool) -> Catalogue | None:
    """Reads the catalogue; None for a new index, or a damaged one to be rebuilt."""
    if not (index / FILE).exists():
        return None
    try:
        return read_catalogue(index)
    except UserError:
        if rebuild:
            return None
        raise


def _own_copy(index: Path, old: Catalogue | None) -> Path | None:
    """The index's copy of the weights; of a damaged index the only one, if it is."""
    if old is not None:
        return index / WEIGHTS / old.model.copy
    if not (index / FILE).exists():
        return None
    copies = [*(index / WEIGHTS).glob("[0-9a-f]" * 16)]
    return copies[0] if len(copies) == 1 else None


def _check_moved(
    index: Path, old: Catalogue, root: Path, found: Mapping[str, Stamp], moved: bool
) -> None:
    """Refuses another folder than the index's, unless its photos have moved there."""
    inside = root.is_relative_to(old.root)
    if not moved and not inside:
        raise UserError(
            f"moved: index={index} is of the photos in {old.root}; set this if they "
            f"are in {root} now, or name another index"
        )
    digests = {entry.digest for entry in recognised(old.photos, root, found).values()}
    missing = sum(
        name not in found and (not entry.digest or entry.digest not in digests)
        for name, entry in old.photos.items()
    )
    lacks = f"{missing:,} of the {len(old.photos):,} photos of index={index}"
    if inside:
        raise UserError(
            f"{root} is inside {old.root}, and lacks {lacks}, by path and by content; "
            "name the library's folder, or another index"
        )
    if 2 * missing > len(old.photos):
        raise UserError(
            f"moved: {root} lacks {lacks}, by path and by content; name the folder "
            "that has them, or another index"
        )


def _started(
    index: Path, old: Catalogue | None, root: Path, extractor: Extractor, rebuild: bool
) -> tuple[str, Catalogue]:
    """The catalogue to start from, and the file that it is to be written to."""
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
        model = _with_copy(index, old.model, extractor)
        return FILE, msgspec.structs.replace(
            old, root=str(root), model=model, checksum=0
        )
    if old is not None:
        with contextlib.suppress(UserError):
            unfinished = read_catalogue(index, REBUILD)
            if unfinished.root == str(root) and not extractor.model.difference(
                unfinished.model
            ):
                model = _with_copy(index, unfinished.model, extractor)
                return REBUILD, msgspec.structs.replace(
                    unfinished, model=model, checksum=0
                )
    model = _with_new_copy(index, extractor.model, extractor)
    return REBUILD if old else FILE, Catalogue(str(root), model, {})


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
