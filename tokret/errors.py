"""Errors that a user can correct, and exit statuses: one line on standard error."""

import errno
import io
import os
import select
import sys
from collections.abc import Callable

from tokret.names import one_line

DISK_FAILED = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


class UserError(Exception):
    """A mistake in what tokret was given: a file, an argument, a field of a config.

    The message is one line that names the thing, what is wrong with it and what to do.
    """


class StoppedError(UserError):
    """A run was stopped by a signal, and saved its state; exit status 75.

    That status is EX_TEMPFAIL: whatever watches over runs starts them again.
    """


def exit_status(program: Callable[[], None]) -> int:
    """Runs a program and returns its exit status.

    Args:
      program: the whole program, without arguments.

    Returns:
      0 when it returns, 2 after a `UserError`, whose message is printed on standard
      error as one line, or when the system refused a file or the disk is full, 75
      after a `StoppedError`, 130 after an interrupt from the keyboard, and 141, without
      a message, when the reader of the output has closed it (`| head`). Any other
      exception is a defect of tokret and passes through with its traceback.
    """
    # A terminal of another encoding than UTF-8 cannot print every name.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        program()
        sys.stdout.flush()
    except BrokenPipeError:
        if not _output_is_closed():
            raise
        return 141
    except StoppedError as stop:
        print(one_line(stop), file=sys.stderr)  # noqa: T201
        return 75
    except UserError as error:
        return _print_error(str(error))
    except OSError as error:
        if error.filename is not None:
            return _print_error(f"{error.filename}: {error.strerror}")
        if error.errno not in DISK_FAILED:
            raise
        # It names no file: most likely standard output, redirected to one.
        status = _print_error(f"the output could not be written: {error.strerror}")
        _drop_output()
        return status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)  # noqa: T201
        return 130
    return 0


def _print_error(message: str) -> int:
    # One write, since threads that are still ending may write there too.
    sys.stderr.write(f"error: {one_line(message)}\n")
    return 2


def _output_is_closed() -> bool:
    """Whether standard output is the pipe that broke; drops its buffer then."""
    try:
        output = sys.stdout.fileno()
    except OSError:  # not a file
        return False
    pipe = select.poll()
    pipe.register(output, 0)
    if not pipe.poll(0):  # which reports broken pipes without registration
        return False
    _drop_output()
    return True


def _drop_output() -> None:
    """Drops what standard output has buffered; it would fail again at the exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
