"""URLs of files and folders in object storage, and the places of their local copies.

Programs work on local files. What has a URL has a local copy at a place that follows
from it: gs://bucket/run is CACHE/gs/bucket/run. So a path shows by itself whether it is
such a copy, and of what; `fetching` and `uploading` bring the two together.
"""

import importlib.util
import os
import re
from pathlib import Path

from tokret.errors import UserError
from tokret.io.remote.cache_folder import CACHE as CACHE
from tokret.io.remote.cache_folder import claim_folder, claimed_folder
from tokret.names import is_valid_name, printable

# Bytes of one part of a path. File systems have 255, of which names of drafts and of
# records of fetched files need some.
MAX_NAME = 200
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.S)


# By scheme: fsspec's protocol, the module that speaks it, what to install.
SCHEMES = {
    "gs": ("gs", "gcsfs", "gcsfs, or tokret[gcs]"),
    "s3": ("s3", "s3fs", "s3fs, or tokret[s3]"),
    "abfs": ("abfs", "adlfs", "adlfs"),
    "az": ("az", "adlfs", "adlfs"),
    "hf": ("hf", "huggingface_hub", "huggingface_hub"),
    "oci": ("oci", "ocifs", "ocifs"),
    "oss": ("oss", "ossfs", "ossfs"),
    "memory": ("memory", "fsspec", "fsspec"),  # of this process alone: for tests
}


def is_url(text: str) -> bool:
    """Whether a text is a URL, and not the path of a local file or folder."""
    return _URL.match(text) is not None


def url_problem(url: str) -> str:
    """Why a URL cannot be used; "" if it can. Nothing is looked up in the network."""
    scheme, rest = _split(url)
    name = printable(url, 80)
    if scheme not in SCHEMES:
        known = ", ".join(f"{name}://" for name in SCHEMES if name != "memory")
        return f"{name!r}: {scheme}:// cannot be used; name a local path or {known}"
    bucket, *parts = rest.rstrip("/").split("/")
    if not bucket:
        return f"{name!r} names no bucket; write {scheme}://BUCKET/FOLDER"
    if not all(map(is_safe_name, (bucket, *parts))):
        return f"{name!r} has a part that is empty, . or .., too long or not printable"
    _, module, package = SCHEMES[scheme]
    if importlib.util.find_spec(module) is None:
        return f"{name!r} needs {module}: pip install {package}"
    return ""


def check_url(url: str, argument: str) -> None:
    """Raises a UserError that names the argument, if a URL cannot be used."""
    if problem := url_problem(url):
        raise UserError(f"{argument}: {problem}")


def is_safe_name(name: str) -> bool:
    """Whether an object's name, or a part of it, can be that of a file or folder."""
    fits = 0 < len(os.fsencode(name)) <= MAX_NAME if is_valid_name(name) else False
    return fits and name not in (".", "..") and not {"/", "\\", "\0"} & {*name}


def _split(url: str) -> tuple[str, str]:
    match = _URL.fullmatch(url)
    if match is None:
        raise ValueError(f"{url!r} is not a URL")
    return match[1].lower(), match[2]


def local_path(url: str) -> Path:
    """Returns the place of the local copy of a URL that has no `url_problem`.

    Raises:
      UserError: the folder of local copies cannot be used, or a link leads out of it.
    """
    scheme, rest = _split(url)
    folder = claim_folder()
    path = folder / scheme / rest.rstrip("/")
    # What resolves such a link has a path that shows no URL: nothing would be uploaded.
    for place in (path, *path.parents[: len(path.parts) - len(folder.parts) - 1]):
        if place.is_symlink():
            raise UserError(
                f"{place} is a link; remove it, and name a folder on the disk it leads "
                f"to: {CACHE}=FOLDER in the environment"
            )
    return path


def path_of(text: str) -> Path:
    """Returns the path that a text names; of a URL the place of its local copy."""
    return local_path(text) if is_url(text) else Path(text).expanduser()


def url_of(path: Path) -> str | None:
    """Returns the URL that a path is the place of a local copy of; None if of none."""
    folder = claimed_folder()
    if folder is None or not (path := path.absolute()).is_relative_to(folder):
        return None
    scheme, *rest = (*path.relative_to(folder).parts, "")
    parts = "/".join(filter(None, rest))
    return f"{scheme}://{parts}" if scheme in SCHEMES and parts else None


def shown(path: Path) -> str:
    """Returns how to name a file or folder to its user: by its URL, if it has one."""
    return url_of(path) or str(path)


def with_urls(text: str) -> str:
    """Replaces the paths of local copies in a message by their URLs."""
    folder = claimed_folder()
    if folder is None:
        return text
    schemes = "|".join(map(re.escape, SCHEMES))
    return re.sub(rf"{re.escape(str(folder))}/({schemes})/", r"\1://", text)
