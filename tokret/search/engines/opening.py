"""Engines by name: a table, and how a URL chooses one of them."""

import difflib
import importlib.util
import re
import socket
from pathlib import Path
from urllib.parse import urlsplit

from tokret.errors import UserError
from tokret.names import printable
from tokret.search.engines.edge import EDGE, EdgeEngine
from tokret.search.engines.points import ALONE, Contents
from tokret.search.engines.protocol import Engine

EXACT = "exact"  # the index's own search: no engine
QDRANT, MILVUS = "qdrant", "milvus"
FOLDER = "engines"  # of an index
CONNECT_SECONDS = 10.0

# By name, the module that it needs, and what to install.
MODULES = {
    EXACT: ("numpy", "tokret"),
    EDGE: ("qdrant_edge", "qdrant-edge-py, or tokret[qdrant]"),
    QDRANT: ("qdrant_client", "qdrant-client, or tokret[qdrant]"),
    MILVUS: ("pymilvus", "pymilvus, or tokret[milvus]"),
}
SERVERS = (QDRANT, MILVUS)
FORMS = (EXACT, EDGE, *(f"{name}://HOST:PORT/COLLECTION" for name in SERVERS))
_SERVER = re.compile(
    r"[a-z-]+://(\[[0-9a-f:.]+\]|[\w.-]+):(\d{1,5})/([A-Za-z_]\w{0,199})", re.ASCII
)


def check_engine(url: str, argument: str) -> str:
    """Checks an engine's URL and its library; nothing is looked up in the network.

    Returns the URL.

    Raises:
      UserError: that names the argument, if it is unknown, or cannot be used.
    """
    name, separator, _ = url.partition("://")
    shown = f"{argument}={printable(url, 80)}"
    if name not in MODULES:
        close = difflib.get_close_matches(name, MODULES, 1)
        hint = f"did you mean {close[0]}?" if close else f"one of {', '.join(FORMS)}"
        raise UserError(f"{shown} is no engine; {hint}")
    match = _SERVER.fullmatch(url)
    if name in SERVERS and not (match and 0 < int(match[2]) < 65536):
        raise UserError(
            f"{shown} must be {name}://HOST:PORT/COLLECTION, the collection of "
            "letters, digits and underscores"
        )
    if name not in SERVERS and separator:
        raise UserError(f"{shown} must be {name} alone: it is a folder of the index")
    module, package = MODULES[name]
    if importlib.util.find_spec(module) is None:
        raise UserError(f"{shown} needs {module}: pip install {package}")
    return url


def _check_answers(url: str) -> None:
    """Raises a UserError where nothing listens: each library has words of its own."""
    address = urlsplit(url)
    try:
        place = (address.hostname or "", address.port or 0)
        socket.create_connection(place, CONNECT_SECONDS).close()
    except OSError as error:
        raise UserError(
            f"{url}: no server answers there ({error.strerror or error}); start it, or "
            "check the host and the port"
        ) from error


def open_engine(
    url: str, index: Path, contents: Contents, writer: str = ALONE
) -> Engine:
    """Opens an engine, or one without points that the first update makes.

    Args:
      url: that `check_engine` accepts, and not of `EXACT`.
      index: the folder of the index.
      contents: the model and the dimensions of its descriptors.
      writer: whose points are added and deleted: "K/N" of a shard, or `ALONE`.

    Raises:
      UserError: it cannot be reached, or has other contents.
    """
    name = url.partition("://")[0]
    if name == EDGE:
        return EdgeEngine(index / FOLDER / EDGE, contents)
    _check_answers(url)
    if name == QDRANT:
        from tokret.search.engines.qdrant import QdrantEngine

        return QdrantEngine(url, contents, writer)
    from tokret.search.engines.milvus import MilvusEngine

    return MilvusEngine(url, contents, writer)
