"""Local copies of objects: a file or a folder of a bucket is fetched before it is read.

A copy that is as it was fetched, of an object that has not changed, is not fetched
again. The folder of local copies may be removed whenever no program runs.
"""

import os
import shutil
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import msgspec

from tokret.errors import UserError
from tokret.io.atomic_files import write_whole
from tokret.io.drafts import is_draft
from tokret.io.regular_files import PARSING_ERRORS
from tokret.io.remote.cache_folder import claim_folder
from tokret.io.remote.objects import (
    Entry,
    MissingObjectError,
    download,
    find_object,
    list_objects,
)
from tokret.io.remote.urls import url_of

TRANSFERS = 8  # objects that are fetched at a time
RECORDS = "fetched"  # in the folder of local copies: what each was fetched from

# By the names of a folder's files: size in bytes, the object's version, mtime in ns.
State = tuple[int, str, int]
Record = dict[str, State]
Report = Callable[[int, int], None]  # bytes done, bytes in all


def _silently(url: str) -> AbstractContextManager[Report]:
    return nullcontext(lambda done, total: None)


_show: Callable[[str], AbstractContextManager[Report]] = _silently  # see `show_with`


def fetch(
    path: Path,
    wanted: Callable[[str], bool] = lambda name: True,
) -> Path:
    """Makes a path's files what its URL has; other paths are left as they are.

    Args:
      path: a local path; that of a local copy may be of a file or a folder.
      wanted: which files of a folder, by their names relative to it. Others stay as
        they are, and what the URL does not have is removed.

    Returns:
      The path. Nothing is there if the URL has nothing.

    Raises:
      StorageError, UnavailableError: as `objects` does.
    """
    url = url_of(path)
    if url is None:
        return path
    entries = list_objects(url)
    if not entries and (found := find_object(url)):
        entries = {"": found}
    entries = {name: entry for name, entry in entries.items() if wanted(name)}
    record = _read_record(path)
    _remove_others(path, entries, wanted)
    missing = {
        name: entry
        for name, entry in entries.items()
        if not _is_fetched(path / name, entry, record.get(name))
    }
    if not missing:
        return path
    with _show(url) as report:
        _download(url, path, missing, report)
    known = {**record, **{n: _state(path / n, e) for n, e in missing.items()}}
    _write_record(
        path, {n: s for n, s in known.items() if n in entries or not wanted(n)}
    )
    return path


def _download(
    url: str, path: Path, entries: Mapping[str, Entry], report: Report
) -> None:
    total = sum(entry.size for entry in entries.values())
    done = dict.fromkeys(entries, 0)
    ends = threading.Event()

    def get(name: str) -> None:
        def fetched(count: int) -> None:
            if ends.is_set():
                raise UserError(f"{url}: not fetched wholly")
            done[name] = count
            report(sum(done.values()), total)

        if (path / name).is_dir():  # of an earlier state of the bucket
            shutil.rmtree(path / name)
        download(f"{url}/{name}" if name else url, path / name, fetched)

    with ThreadPoolExecutor(TRANSFERS) as pool:
        try:
            for _ in pool.map(get, entries):
                pass
        finally:
            ends.set()  # an interrupt does not wait for large objects
            pool.shutdown(cancel_futures=True)


def show_with(show: Callable[[str], AbstractContextManager[Report]]) -> None:
    """Sets what shows how far fetches are, from now on; nothing does at first.

    It is called with a URL; what its context yields is called, in any thread, with the
    bytes that are fetched and those in all.
    """
    global _show
    _show = show


def require(path: Path, wanted: Callable[[str], bool] = lambda name: True) -> Path:
    """Fetches as `fetch`; raises a MissingObjectError if the URL has nothing."""
    fetch(path, wanted)
    url = url_of(path)
    if url is not None and not path.exists():
        raise MissingObjectError(url)
    return path


def drop(path: Path) -> None:
    """Removes a local copy, which can be fetched again; other paths stay."""
    if url_of(path) is None:
        return
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
    _record_of(path).unlink(missing_ok=True)


def _remove_others(
    path: Path, entries: Mapping[str, Entry], wanted: Callable[[str], bool]
) -> None:
    """Removes local files that the URL does not have."""
    if path.is_file() and "" not in entries:
        path.unlink()
    if path.is_dir() and "" in entries:
        shutil.rmtree(path)
    for file in path.rglob("*"):
        name = file.relative_to(path).as_posix()
        other = name not in entries and wanted(name) and not is_draft(file.name)
        if other and not file.is_dir():
            file.unlink(missing_ok=True)


def _is_fetched(path: Path, entry: Entry, state: State | None) -> bool:
    # Without a version the object may be another of that size.
    return bool(entry.version) and state is not None and state == _state(path, entry)


def _state(path: Path, entry: Entry) -> State:
    try:
        info = os.stat(path)
    except OSError:
        return (-1, entry.version, -1)
    return (info.st_size, entry.version, info.st_mtime_ns)


def _record_of(path: Path) -> Path:
    place = path.absolute().relative_to(claim_folder())
    return claim_folder() / RECORDS / place.with_name(f"{place.name}.json")


def _read_record(path: Path) -> Record:
    try:
        return msgspec.json.decode(_record_of(path).read_bytes(), type=Record)
    except PARSING_ERRORS:  # lost or damaged: fetched again
        return {}


def _write_record(path: Path, record: Record) -> None:
    target = _record_of(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_whole(target, msgspec.json.encode(record))
