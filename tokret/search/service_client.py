"""Queries to a running `tokret serve`, which answers faster than a new process."""

import http.client
import ipaddress
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import msgspec

from tokret.errors import UserError
from tokret.io.regular_files import read_file
from tokret.io.remote.urls import url_of
from tokret.search.catalogue import open_catalogue
from tokret.search.hits import Hit
from tokret.search.queries import Query, SearchOptions, SearchResults
from tokret.search.service.service_file import ServiceFile, is_own, running_service

MOST = 200  # results of an answer
SECONDS = 60.0  # that an answer may take
MAX_BYTES = 2**25  # of a photo, and of an answer


class _Result(msgspec.Struct):
    id: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{16}\Z")]
    name: str
    label: str
    score: float
    near_duplicates: int = 0


class _Seconds(msgspec.Struct):
    extract: float
    search: float


class Answer(msgspec.Struct):
    """What a service retrieved."""

    results: list[_Result]
    total: int
    seconds: _Seconds


class _Health(msgspec.Struct):
    status: str
    service: str


class ServiceClient:
    """The service of an index on this host."""

    def __init__(self, file: ServiceFile) -> None:
        """Takes what the service wrote into its index; connects to nothing."""
        address = urlsplit(file.url)
        self._host, self._port = address.hostname or "", address.port or 80
        self._service = file.service
        self._is_safe = address.scheme == "http" and _is_loopback(self._host)

    def is_ready(self) -> bool:
        """Whether it runs and is that of the index, and can be reached locally."""
        if not self._is_safe:
            return False
        try:
            content = self._request("GET", "/healthz", b"", {}, 2.0)
            health = msgspec.json.decode(content, type=_Health)
        except (OSError, http.client.HTTPException, msgspec.MsgspecError):
            return False
        return health == _Health("ready", self._service)

    def search(
        self,
        photos: Sequence[Path],
        unlike: Sequence[Path],
        fields: Sequence[tuple[str, str]],
    ) -> Answer | None:
        """Searches for photos; None where the service does not answer as expected.

        Args:
          photos: to resemble.
          unlike: not to resemble.
          fields: of the form, beside the files.
        """
        try:
            files = [("photo", read_file(path, MAX_BYTES)) for path in photos]
            files += [("unlike_photo", read_file(path, MAX_BYTES)) for path in unlike]
            body, kind = _form(fields, files)
            headers = {"Content-Type": kind}
            if token := os.environ.get("TOKRET_TOKEN"):
                headers["Authorization"] = f"Bearer {token}"
            content = self._request("POST", "/search", body, headers, SECONDS)
            return msgspec.json.decode(content, type=Answer)
        except (OSError, http.client.HTTPException, ValueError, UserError):
            return None

    def _request(
        self, method: str, path: str, body: bytes, headers: dict[str, str], wait: float
    ) -> bytes:
        """Sends a request; returns the answer to one that succeeded."""
        connection = http.client.HTTPConnection(self._host, self._port, timeout=wait)
        try:
            connection.request(method, path, body or None, headers)
            response = connection.getresponse()
            content = response.read(MAX_BYTES)
            if response.status != http.client.OK:
                raise http.client.HTTPException(response.status)
            return content
        finally:
            connection.close()


def search_by_service(
    index: Path, queries: Sequence[Query], options: SearchOptions
) -> list[SearchResults] | None:
    """Searches by the running service of an index.

    Returns:
      The results of all queries; None if no service runs, or it does not answer one of
      them as expected.
    """
    if url_of(index) is not None or options.top > MOST:
        return None
    client = find_service(index)
    if client is None:
        return None
    with open_catalogue(index) as catalogue:
        root = Path(catalogue.root)
    found = []
    for query in queries:
        fields = _fields(query, options)
        answer = client.search(query.photos, query.unlike, fields)
        if answer is None or not answer.results:  # then the reason is printed
            return None
        found.append(_results(query, answer, root))
    return found


def _fields(query: Query, options: SearchOptions) -> list[tuple[str, str]]:
    fields = [
        ("top", str(options.top)),
        ("leave_out_query", "yes" if options.leave_out_query else "no"),
        ("near_duplicates", "hide" if options.hide_near_duplicates else "show"),
        *(("folder", folder) for folder in options.filters.folders),
        *(("label", label) for label in options.filters.labels),
    ]
    if query.box is not None:
        fields.append(("box", ",".join(map(repr, query.box))))
    return fields


def _results(query: Query, answer: Answer, root: Path) -> SearchResults:
    hits = [
        Hit(found.name, found.score, found.id, found.label, found.near_duplicates)
        for found in answer.results
    ]
    gone = [hit.name for hit in hits if not os.path.exists(root / hit.name)]
    seconds = answer.seconds.extract, answer.seconds.search
    return SearchResults(root, hits, gone, answer.total, *seconds, query.name)


def find_service(index: Path) -> ServiceClient | None:
    """The service of an index, if this user runs one on this host and it is ready."""
    file = running_service(index) if is_own(index) else None
    client = ServiceClient(file) if file else None
    return client if client and client.is_ready() else None


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _form(
    fields: Sequence[tuple[str, str]], files: Sequence[tuple[str, bytes]]
) -> tuple[bytes, str]:
    """multipart/form-data and its type."""
    boundary = secrets.token_hex(16)
    pieces = []
    for name, text in fields:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
        pieces += [head.encode(), text.encode(), b"\r\n"]
    for name, content in files:
        head = (
            f"--{boundary}\r\nContent-Disposition: form-data; "
            f'name="{name}"; filename="photo"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        pieces += [head.encode(), content, b"\r\n"]
    return b"".join([*pieces, f"--{boundary}--\r\n".encode()]), (
        f"multipart/form-data; boundary={boundary}"
    )
