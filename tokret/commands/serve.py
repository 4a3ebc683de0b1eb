"""Serves an index: a page to search with, and an HTTP API."""

import functools
import importlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Literal

import tyro

from tokret.arguments import within
from tokret.command_line import log
from tokret.data.decoding import MAX_PIXELS
from tokret.errors import UserError
from tokret.option_types import RemotePath
from tokret.runtime.compilation_cache import DEFAULT, keep_compiled

LIBRARIES = ("starlette", "uvicorn", "python_multipart", "prometheus_client")


def main(
    index: RemotePath,
    host: str = "127.0.0.1",
    port: int = 8000,
    root: Path | None = None,
    engine: str = "",
    precision: Literal["float32", "int8"] = "float32",
    names: tuple[str, ...] = (),
    read_only: bool = False,
    max_upload: Annotated[int, tyro.conf.arg(metavar="MIB")] = 32,
    max_pixels: int = MAX_PIXELS,
    access_log: bool = False,
    compilation_cache: str = DEFAULT,
) -> None:
    """Serve an index: a page to search with, and an HTTP API.

    Ends at Ctrl-C or SIGTERM, once the requests in progress are answered. The secret
    TOKRET_TOKEN in the environment is then required of requests; a host that other
    machines reach needs one.

    Args:
      index: the folder of the index.
      host: the address to listen on; 0.0.0.0 is all of this machine.
      port: the port; 0 takes any that is free.
      root: the folder where the index's photos are now, if they were moved.
      engine: of the search, exact or a URL; by default the index's own.
      precision: of the descriptors in memory: float32, or int8 in a quarter of it.
      names: further host names by which it, or a proxy in front of it, is reached, as
        photos.example.org.
      read_only: refuse to add and to remove photos.
      max_upload: the largest photo that is taken, in MiB.
      max_pixels: the most pixels of a photo, as of `tokret index`.
      access_log: print a line for each request.
      compilation_cache: folder of compiled programs; "" keeps none.
    """
    require_libraries()
    # Not of other commands, which start without them.
    from tokret.data.preparing.photo_files import MAX_BYTES
    from tokret.data.preparing.photo_processing import MOST_PIXELS
    from tokret.search.catalogue import WEIGHTS
    from tokret.search.extractor import Extractor, load_copy
    from tokret.search.remote_index import fetched_catalogue
    from tokret.search.searcher import Searcher
    from tokret.search.service.guard import check_token
    from tokret.search.service.limits import MIB, Limits
    from tokret.search.service.server import Address, run
    from tokret.search.service.state import Service

    within("port", port, 0, 65_535)
    within("max_upload", max_upload, 1, MAX_BYTES // MIB)
    within("max_pixels", max_pixels, 1, MOST_PIXELS)
    if root is not None and not root.is_dir():
        raise UserError(f"root={root} is not a folder; name that of the photos")
    keep_compiled(compilation_cache)
    token = check_token(host, os.environ.get("TOKRET_TOKEN"))
    address = Address(host, port)
    photo_bytes = max_upload * MIB
    limits = Limits(
        photo_bytes=photo_bytes, body_bytes=4 * photo_bytes, pixels=max_pixels
    )

    @functools.cache
    def load(copy: str) -> Extractor:
        return load_copy(index / WEIGHTS / copy)

    def open_index() -> Searcher:
        log(f"opening {index}")
        with fetched_catalogue(index) as catalogue:
            copy = catalogue.model.copy
        with ThreadPoolExecutor(1) as pool:
            pool.submit(load, copy)  # while the descriptors are read
            return Searcher(index, load, root=root, engine=engine, precision=precision)

    bound = address.bind()
    url = address.url(bound)
    service = Service(limits, address.access(token, names), read_only)
    note = address_note(address.others_url(bound), names)
    run(service, bound, url, index, open_index, log, access_log, note)


def address_note(url: str, names: Sequence[str]) -> str:
    """How other devices reach the service at a URL; "" where they do not."""
    if not url:
        return ""
    others = " and ".join(names) or "none yet"
    return (
        f"{url} is for other devices, which need TOKRET_TOKEN; names of a "
        f"proxy or a DNS server are refused unless given with --names ({others})"
    )


def require_libraries() -> None:
    """Refuses early where the extra is not installed."""
    try:
        for name in LIBRARIES:
            importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"{error.name} is missing; install it: pip install 'tokret[serve]'"
        ) from error
