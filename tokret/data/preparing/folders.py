"""Files below a folder, however it is nested."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from tokret.errors import UserError


def files_below(root: Path) -> Iterator[Path]:
    """Lists all files below a folder by name, following each link to a folder once.

    If the folder does not exist, there are no files.

    Raises:
      UserError: if a folder cannot be read.
    """
    seen = set()
    for folder, inner, names in os.walk(root, onerror=_refuse, followlinks=True):
        info = os.stat(folder)
        # A link to a folder above would be followed for ever.
        if (info.st_dev, info.st_ino) in seen:
            inner.clear()
            continue
        seen.add((info.st_dev, info.st_ino))
        inner.sort()
        for name in sorted(names):
            yield Path(folder, name)


def _refuse(error: OSError) -> NoReturn:
    raise UserError(f"{error.filename} cannot be read: {error.strerror}") from error
