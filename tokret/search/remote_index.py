"""An index in object storage: what of it is fetched to its local copy, and when.

An update fetches the index once it has the lease, writes to the local copy, and uploads
each part before the catalogue that refers to it. A query fetches the catalogue, then
what it refers to. Of an index on a disk these functions do nothing.
"""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from tokret.io.remote.fetching import fetch
from tokret.io.remote.uploading import withdraw_folder
from tokret.io.remote.urls import url_of
from tokret.search.catalogue import FILE, PARTS, WEIGHTS, Catalogue, open_catalogue
from tokret.training.remote_runs import is_small


def fetch_index(index: Path, *files: str) -> None:
    """Fetches catalogues, parts, and the small files of the copies of the weights.

    Args:
      index: its folder.
      files: the names of its catalogues.

    Raises:
      StorageError, UnavailableError: as `fetch` does.
    """
    fetch(index, lambda name: name in files or _is_needed(name))


def _is_needed(name: str) -> bool:
    kind, _, rest = name.partition("/")
    return kind == PARTS or (kind == WEIGHTS and is_small(rest.partition("/")[2]))


@contextlib.contextmanager
def fetched_catalogue(index: Path) -> Iterator[Catalogue]:
    """Fetches the catalogue, and opens it as `open_catalogue`.

    Raises:
      UserError: there is none, or it is damaged.
    """
    fetch(index / FILE)
    with open_catalogue(index) as catalogue:
        yield catalogue


def fetch_parts(index: Path, catalogue: Catalogue) -> None:
    """Fetches the parts that a catalogue refers to; errors are those of `fetch`."""
    if url_of(index) is None:
        return
    parts = {part.name for part in catalogue.parts()}
    fetch(
        index, lambda name: name.startswith(f"{PARTS}/") and name.split("/")[1] in parts
    )


def remove_folder(folder: Path) -> None:
    """Removes a part, or a copy of the weights."""
    withdraw_folder(folder)
    shutil.rmtree(folder, ignore_errors=url_of(folder) is not None)
