"""Calls of object storage, repeated while it fails for a time; errors in one line."""

import contextlib
import contextvars
import errno
import logging
import math
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from tokret.errors import StoppedError, UserError
from tokret.names import one_line

Result = TypeVar("Result")

PATIENCE = "TOKRET_STORAGE_PATIENCE"  # the environment's seconds; see `patience`
DEFAULT_PATIENCE = 900.0
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds
REFUSED = (401, 403)  # of HTTP
# By the names of their classes, since what raises them need not be installed.
_NO_CREDENTIALS = ("NoCredentialsError", "DefaultCredentialsError", "ProfileNotFound")
_LIBRARIES = ("gcsfs", "s3fs", "fsspec", "aiobotocore", "botocore", "google", "aiohttp")

_waits = contextvars.ContextVar("waits", default=True)


class StorageError(UserError):
    """Object storage refused something for good: no permission, no such bucket."""


class UnavailableError(StoppedError):
    """Object storage failed for as long as was waited; the same command may succeed."""


def patience() -> float:
    """Returns for how many seconds a failing call is repeated."""
    text = os.environ.get(PATIENCE)
    try:
        seconds = float(text) if text else DEFAULT_PATIENCE
    except ValueError:
        seconds = math.nan
    if math.isnan(seconds):  # which no time exceeds
        raise UserError(f"{PATIENCE} is {text!r}; it must be seconds")
    return seconds


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """Within it no call of this thread is repeated."""
    token = _waits.set(False)
    try:
        yield
    finally:
        _waits.reset(token)


def retried(url: str, call: Callable[[], Result]) -> Result:
    """Calls a function of a library for object storage until it succeeds.

    Failures that pass, such as a server's 429 and 503 or lost connections, are repeated
    with waits that double, up to half a minute.

    Args:
      url: what is read or written, for errors.
      call: may be called several times.

    Raises:
      FileNotFoundError, FileExistsError: as the library does.
      StorageError: what will not pass: no credentials, no permission, a wrong request.
      UnavailableError: after `patience` seconds; its exit status is 75.
    """
    _quieten()
    start, wait = time.monotonic(), FIRST_WAIT
    while True:
        try:
            return call()
        except (FileNotFoundError, FileExistsError, UserError):
            raise
        except Exception as error:
            if problem := _permanent(error):
                raise StorageError(f"{url}: {problem}") from error
            passed = time.monotonic() - start
            reason = _reason(error)
            if not _waits.get() or passed + wait > patience():
                raise UnavailableError(
                    f"{url}: the storage failed for {passed:.0f} seconds ({reason}); "
                    "the same command resumes once it works again"
                ) from error
            if wait == FIRST_WAIT:
                line = f"warning: {url}: {reason}; trying again for {patience():.0f} s"
                print(line, file=sys.stderr, flush=True)  # noqa: T201
            # Many hosts that wait equally long would come back together.
            time.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311
            wait = min(2 * wait, LONGEST_WAIT)


def _permanent(error: BaseException) -> str:
    """Why an error will not pass, and what to do; "" if it may."""
    causes = _causes(error)
    if any(type(cause).__name__ == "TransportError" for cause in causes):
        return ""  # Google's server of tokens was not reached
    for cause in causes:
        code = getattr(cause, "code", None)
        if type(cause).__name__ in _NO_CREDENTIALS:
            return f"no credentials ({_reason(cause)}); log in, or set those of a key"
        refused = isinstance(cause, PermissionError) or str(code) in map(str, REFUSED)
        if refused or str(cause).startswith("Forbidden"):
            return (
                f"no permission ({_reason(cause)}); log in, or get the right to "
                "list, read and write it"
            )
        wrong = getattr(cause, "errno", None) in (errno.EINVAL, errno.ENAMETOOLONG)
        if wrong or isinstance(cause, (ValueError, TypeError, NotImplementedError)):
            return f"refused: {_reason(cause)}"
        if getattr(cause, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            return f"{os.strerror(cause.errno)} for its local copy"  # type: ignore[attr-defined]
    return ""


def _causes(error: BaseException) -> list[BaseException]:
    found = [error]
    while (cause := found[-1].__cause__) is not None and cause not in found:
        found.append(cause)
    return found


def _reason(error: BaseException) -> str:
    return one_line(str(error) or type(error).__name__)[:200]


def _quieten() -> None:
    """Silences what libraries log of failures: they are reported here, in one line."""
    for name in _LIBRARIES:
        logging.getLogger(name).setLevel(logging.CRITICAL)
