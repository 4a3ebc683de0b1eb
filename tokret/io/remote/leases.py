"""A lease: an object that names the process at work in a folder of a bucket.

A bucket has no lock that ends with a process. The holder writes the object again every
few seconds; if it stays the same for a while, its holder was killed, and another takes
it over. No clocks of different hosts are compared.
"""

import contextlib
import json
import os
import platform
import secrets
import threading
import time
from collections.abc import Callable, Iterator

from tokret.errors import UserError
from tokret.io import drafts
from tokret.io.remote.objects import read_object, remove, write_object
from tokret.io.remote.retrying import at_once
from tokret.names import printable

RENEWED = 10.0  # seconds between two writes by its holder
EXPIRES = 60.0  # seconds without one after which the lease is taken over
SETTLES = 1.0  # seconds in which another that takes it over at once shows itself
LARGEST = 4096  # bytes of the object


@contextlib.contextmanager
def leased(
    url: str, refusal: str, report: Callable[[str], None] = lambda line: None
) -> Iterator[Callable[..., bool]]:
    """Holds a lease, which ends with the context, or expires after the process's end.

    Args:
      url: the lease's object.
      refusal: the error's text if another holds it; who that is follows it.
      report: is called with a line before it waits for another's lease to expire.

    Yields:
      What returns whether it was still held when it was renewed last; with `now=True`
      it is read again, since this process may have been stopped for a while.

    Raises:
      UserError: another process holds it.
      StorageError, UnavailableError: as `objects` does.
    """
    lease = _Lease(url)
    lease.acquire(refusal, report)
    ends = threading.Event()
    thread = threading.Thread(target=lease.renew_until, args=(ends,), daemon=True)
    thread.start()
    try:
        yield lease.is_held
    finally:
        ends.set()
        thread.join(RENEWED)
        lease.release()


class _Lease:
    def __init__(self, url: str) -> None:
        self._url = url
        self._owner = secrets.token_hex(8)
        self._since = time.strftime("%Y-%m-%d %H:%M:%S %z")
        self._writes = 0
        self._lost = False

    def acquire(self, refusal: str, report: Callable[[str], None]) -> None:
        while True:
            found = self._read()
            if found is not None and self._await_end(found, refusal, report):
                remove(self._url)
            # FileExistsError: another was faster, or this one's answer was lost.
            with contextlib.suppress(FileExistsError):
                self._write(new=True)
            time.sleep(SETTLES)
            self._look()
            if not self._lost:
                return
            self._lost = False

    def _await_end(
        self, found: bytes, refusal: str, report: Callable[[str], None]
    ) -> bool:
        """Waits until the lease has expired; returns whether it is left to remove."""
        holder = _facts(found)
        pid, host, since = (
            printable(str(holder[name]), 80) for name in ("pid", "host", "since")
        )
        who = f"process {pid} on {host}"
        if _has_ended(holder):
            return True
        report(f"waiting up to {EXPIRES:.0f} s: {who} may still be at work")
        last = time.monotonic() + EXPIRES
        while time.monotonic() < last:
            time.sleep(min(RENEWED / 4, max(0.0, last - time.monotonic())))
            now = self._read()
            if now is None:
                return False
            if now != found:
                raise UserError(f"{refusal} (it is {who}, since {since})")
        return True

    def renew_until(self, ends: threading.Event) -> None:
        while not ends.wait(RENEWED) and not self._lost:
            # The storage may fail for a time; others cannot take the lease then.
            with contextlib.suppress(UserError), at_once():
                self._look()
                if not self._lost:
                    self._write()

    def is_held(self, *, now: bool = False) -> bool:
        if now and not self._lost:
            self._look()
        return not self._lost

    def release(self) -> None:
        with contextlib.suppress(UserError), at_once():  # or it expires
            self._look()
            if not self._lost:
                remove(self._url)

    def _look(self) -> None:
        found = self._read()
        if found is None or _facts(found)["owner"] != self._owner:
            self._lost = True

    def _read(self) -> bytes | None:
        try:
            return read_object(self._url, LARGEST)
        except FileNotFoundError:
            return None

    def _write(self, *, new: bool = False) -> None:
        self._writes += 1
        facts = {
            "owner": self._owner,
            "host": platform.node(),
            "scope": drafts.own_scope(),
            "pid": os.getpid(),
            "since": self._since,
            "writes": self._writes,
        }
        write_object(self._url, json.dumps(facts).encode(), new=new)


def _facts(content: bytes) -> dict[str, object]:
    """The facts of a lease; one that is damaged is of nobody, and expires."""
    nobody = {"owner": "", "host": "?", "scope": "", "pid": -1, "since": "?"}
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    return {**nobody, **found} if isinstance(found, dict) else nobody


def _has_ended(holder: dict[str, object]) -> bool:
    """Whether it was a process of this host and container, which is no more."""
    pid = holder["pid"]
    here = holder["scope"] == drafts.own_scope()
    if not here or not isinstance(pid, int) or not 0 < pid < 2**31:
        return False
    return not drafts.is_running(pid)
