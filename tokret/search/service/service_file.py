"""INDEX/.service.json: which service searches an index, for `tokret query`."""

import contextlib
import os
from pathlib import Path

import msgspec

from tokret.errors import UserError
from tokret.io.atomic_files import write_whole
from tokret.io.drafts import is_running, own_scope
from tokret.io.json_files import read_json

FILE = ".service.json"
MAX_BYTES = 10_000


class ServiceFile(msgspec.Struct, frozen=True):
    """A running service."""

    url: str  # http://127.0.0.1:8000
    pid: int  # of its process
    scope: str  # the host and container in which the PID is valid
    service: str  # its random name, as /healthz has it


def running_service(index: Path) -> ServiceFile | None:
    """The service of an index on this host; None if none runs.

    A PID may have been given to another process since: compare /healthz before a token
    is sent.
    """
    try:
        found: ServiceFile = read_json(index / FILE, ServiceFile, "", MAX_BYTES)
    except UserError:
        return None
    here = found.scope == own_scope() and is_running(found.pid)
    return found if here else None


def is_own(index: Path) -> bool:
    """Whether this process's user wrote the file: others' may name any address."""
    try:
        return os.lstat(index / FILE).st_uid == os.geteuid()
    except OSError:
        return False


def write_service(index: Path, url: str, service: str) -> bool:
    """Names this process as the index's service, unless another one runs."""
    other = running_service(index)
    if other is not None and other.pid != os.getpid():
        return False
    mine = ServiceFile(url, os.getpid(), own_scope(), service)
    write_whole(index / FILE, msgspec.json.encode(mine) + b"\n")
    return True


def remove_service(index: Path, service: str) -> None:
    """Removes the file if it is that of a service."""
    found = running_service(index)
    if found is not None and found.service == service:
        with contextlib.suppress(OSError):
            (index / FILE).unlink()
