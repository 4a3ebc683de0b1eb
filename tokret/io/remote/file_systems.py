"""fsspec's file systems: calls that end, whatever the server does.

Their libraries repeat some failing calls themselves, silently: gcsfs for half a minute,
s3fs five times. `retrying` repeats what fails after that, and reports it.
"""

import os
from typing import Any

from tokret.errors import UserError
from tokret.io.remote.retrying import retried
from tokret.io.remote.urls import SCHEMES, url_problem

CONNECT_TIMEOUT = 20.0  # seconds
READ_TIMEOUT = 30.0  # seconds without a byte of an answer
UPLOAD_TIMEOUT = 120.0  # seconds of an upload, and those for its bytes
UPLOAD_CHUNK = 50 * 2**20  # bytes
SLOWEST = 100_000  # bytes per second of an upload

# Of a download: one request for all of it, so that no two versions are mixed.
_ONE_REQUEST = {"gs": {"concurrency": 1}, "s3": {"max_concurrency": 1}}


def open_url(url: str) -> tuple[Any, str]:
    """Returns fsspec's file system of a URL, and the path in it.

    Raises:
      UserError: if the URL cannot be used.
      StorageError, UnavailableError: as `retrying.retried` does.
    """
    import fsspec  # takes long

    if problem := url_problem(url):
        raise UserError(problem)
    scheme, _, rest = url.partition("://")
    protocol = SCHEMES[scheme.lower()][0]
    # gcsfs would look up each bucket's kind by gRPC, which not all proxies pass on: a
    # minute for each call. Only buckets that are in a single zone need it.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    options = _options(protocol)
    make = lambda: fsspec.filesystem(protocol, use_listings_cache=False, **options)  # noqa: E731
    return retried(url, make), rest.rstrip("/")


def _options(protocol: str) -> dict[str, Any]:
    if protocol == "gs":
        import aiohttp  # gcsfs requires it; its own calls never time out

        timeout = aiohttp.ClientTimeout(
            sock_connect=CONNECT_TIMEOUT, sock_read=READ_TIMEOUT
        )
        return {"requests_timeout": timeout}
    if protocol == "s3":
        timeouts = {"connect_timeout": CONNECT_TIMEOUT, "read_timeout": READ_TIMEOUT}
        # botocore would repeat each of s3fs's attempts five times.
        once = {"total_max_attempts": 1}
        return {"config_kwargs": {"retries": once, **timeouts}}
    return {}


def upload_options(files: Any, size: int) -> dict[str, Any]:
    """Options of a file system's call that uploads a number of bytes."""
    # A server that reads no further would stop it for ever.
    seconds = UPLOAD_TIMEOUT + size / SLOWEST
    return {"timeout": seconds} if files.async_impl else {}


def write_options(url: str, files: Any, content: bytes) -> dict[str, Any]:
    """Options of a file system's call that writes an object."""
    options = upload_options(files, len(content))
    if content and url.lower().startswith("gs:"):
        # gcsfs (2026.10) would send it as part of a message, without looking for the
        # boundary of parts in it, of which "\r" at its end is one: bytes would be lost.
        options["chunksize"] = min(len(content), UPLOAD_CHUNK)
    return options


def download_options(url: str) -> dict[str, Any]:
    """Options of a file system's call that downloads an object."""
    return _ONE_REQUEST.get(url.partition("://")[0].lower(), {})


def callback(hooks: dict[str, Any]) -> Any:
    """Returns fsspec's callback with hooks."""
    import fsspec.callbacks

    return fsspec.callbacks.Callback(hooks=hooks)
