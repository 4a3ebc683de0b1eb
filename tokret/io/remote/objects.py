"""Objects of a bucket: listed, read, written and removed, each as a whole.

A bucket has no folders, no appending and no renaming. An object appears when all of it
is written, and a reader sees the old one or the new one.
"""

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tokret.errors import UserError
from tokret.io.atomic_files import replacing
from tokret.io.remote.file_systems import (
    callback,
    download_options,
    open_url,
    upload_options,
    write_options,
)
from tokret.io.remote.retrying import Result, StorageError, retried
from tokret.io.remote.urls import is_safe_name
from tokret.names import printable

# An upload to gs:// is started again, if the server no longer knows its session; the
# error is that of no bucket.
SESSIONS = 3
SMALL = 8 * 2**20  # bytes of a file that is read into memory to upload it


class Entry(NamedTuple):
    """An object of a listing: its size in bytes, and when it was written, as text."""

    size: int
    version: str


def list_objects(url: str) -> dict[str, Entry]:
    """Lists all objects below a URL, by their names relative to it, sorted.

    Raises:
      StorageError: there is no such bucket, it may not be listed, or it has a name that
        no file can have.
      UnavailableError: the storage fails; so do all functions of this module.
    """
    files, path = open_url(url)
    found = _in_bucket(url, lambda: files.find(path, detail=True))
    entries = {}
    prefix = path.strip("/") + "/"
    for name, facts in sorted(found.items()):
        inner = name.lstrip("/").removeprefix(prefix)
        if inner == name.lstrip("/") or inner.endswith("/"):
            continue  # the URL itself, or what a console made as a folder
        if not all(map(is_safe_name, inner.split("/"))):
            raise StorageError(
                f"{url}/{printable(inner, 80)}: no file can have this name; remove it"
            )
        entries[inner] = Entry(int(facts["size"]), _version(facts))
    _refuse_object_and_folder(url, entries)
    return entries


def _refuse_object_and_folder(url: str, entries: Mapping[str, Entry]) -> None:
    for name in entries:
        folder = name.rpartition("/")[0]
        while folder and folder not in entries:
            folder = folder.rpartition("/")[0]
        if folder:
            raise StorageError(
                f"{url}/{printable(folder, 80)} is an object and a folder, which no "
                "disk can have; remove one of them"
            )


def find_object(url: str) -> Entry | None:
    """Looks an object up; None if there is none of exactly this name."""
    files, path = open_url(url)
    try:
        facts = retried(url, lambda: files.info(path))
    except FileNotFoundError:
        return None
    if facts["type"] == "directory":
        return None
    return Entry(int(facts["size"]), _version(facts))


def list_names(url: str) -> list[str]:
    """Lists what is directly below a URL: objects, and folders by a slash at the end.

    It takes one request, whatever is in the folders.
    """
    files, path = open_url(url)
    try:
        found = retried(url, lambda: files.ls(path, detail=True))
    except FileNotFoundError:
        return []
    prefix = path.strip("/") + "/"
    names = []
    for facts in found:
        inner = facts["name"].strip("/").removeprefix(prefix)
        if is_safe_name(inner) and inner != path.strip("/"):
            names.append(f"{inner}/" if facts["type"] == "directory" else inner)
    return sorted({*names})


def read_object(url: str, max_bytes: int) -> bytes:
    """Reads an object.

    Raises:
      FileNotFoundError: if there is none.
      UserError: if it is larger than `max_bytes`.
    """
    files, path = open_url(url)
    # Not the first bytes only: servers refuse such a range of an empty object.
    size = retried(url, lambda: files.info(path))["size"]
    content = b"" if size > max_bytes else retried(url, lambda: files.cat_file(path))
    if max(size, len(content)) > max_bytes:
        raise UserError(f"{url}: more than {max_bytes} bytes, it is something else")
    return bytes(content)


def write_object(
    url: str,
    content: bytes,
    *,
    new: bool = False,
    before: Callable[[], None] = lambda: None,
) -> None:
    """Writes an object, in place of an older one; `before` is that of `upload`.

    Raises:
      FileExistsError: with `new`, if there is one. Not every storage notices.
    """
    files, path = open_url(url)
    options = write_options(url, files, content)
    if new:
        options["mode"] = "create"

    def write() -> None:
        before()
        files.pipe_file(path, content, **options)

    _in_bucket(url, write)


def _in_bucket(url: str, call: Callable[[], Result]) -> Result:
    """Calls what fails with FileNotFoundError where there is no bucket."""
    for _ in range(SESSIONS - 1):
        with contextlib.suppress(FileNotFoundError):
            return retried(url, call)
    try:
        return retried(url, call)
    except FileNotFoundError as error:
        bucket = "/".join(url.split("/")[:3])
        raise StorageError(
            f"{url}: there is no such bucket, {bucket}; make it, or check its name"
        ) from error


def upload(path: Path, url: str, before: Callable[[], None] = lambda: None) -> None:
    """Writes an object with the content of a file, which may change meanwhile.

    Args:
      path: the file.
      url: the object.
      before: is called before each try; what it raises ends them, if a UserError.

    Raises:
      FileNotFoundError: if there is no such file.
    """
    files, target = open_url(url)
    old = path.stat()
    if old.st_size < SMALL:
        write_object(url, path.read_bytes(), before=before)
    else:
        options = upload_options(files, old.st_size)

        def put() -> None:
            before()
            files.put_file(str(path), target, **options)

        _in_bucket(url, put)
    # What was sent and acknowledged, for a server that is not what it should be.
    stored = int(retried(url, lambda: files.info(target))["size"])
    new = path.stat()
    is_same = (old.st_ino, old.st_mtime_ns) == (new.st_ino, new.st_mtime_ns)
    if stored != old.st_size and is_same:
        sent = old.st_size
        raise StorageError(f"{url} has {stored} bytes, not the {sent} that were sent")


def download(
    url: str, path: Path, report: Callable[[int], None] = lambda done: None
) -> None:
    """Writes a file with the content of an object, whole; makes its folder.

    Args:
      url: the object.
      path: the file.
      report: is called with the bytes fetched so far; fewer where it starts again.

    Raises:
      FileNotFoundError: if there is no such object.
      UserError: if the file cannot be written.
    """
    files, source = open_url(url)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise UserError(f"{path.parent}: no folder can be made: {why}") from error

    def get(draft: Path) -> None:
        follow = callback({"report": lambda size, value, **_: report(value)})
        options = download_options(url)
        files.get_file(source, str(draft), callback=follow, **options)

    with replacing(path) as draft:
        try:
            retried(url, lambda: get(draft))
        except FileNotFoundError as error:
            raise MissingObjectError(url) from error


class MissingObjectError(UserError):
    """There is no such object."""

    def __init__(self, url: str) -> None:
        """Names it."""
        super().__init__(f"{url}: there is no such object; check its name")


def remove(url: str) -> None:
    """Removes an object; none is no error."""
    files, path = open_url(url)
    try:
        retried(url, lambda: files.rm_file(path))
    except FileNotFoundError:
        return


def _version(facts: Mapping[str, Any]) -> str:
    """What changes with an object: by the storages' own names; "" if nothing does."""
    if facts.get("generation"):
        return str(facts["generation"])
    # An ETag alone is back with an older content.
    digests, times = ("ETag", "etag", "blob_id"), ("LastModified", "last_modified")
    names = (*digests, *times, "mtime", "created")
    return " ".join(str(facts[name]) for name in names if facts.get(name))
