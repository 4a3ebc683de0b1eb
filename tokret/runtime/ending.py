"""How programs end: one line on standard error, and an exit status."""

import contextlib
import errno
import io
import os
import select
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from typing import NoReturn

from tokret.errors import StoppedError, UserError
from tokret.io.remote.urls import with_urls
from tokret.names import one_line
from tokret.runtime import signals

DISK_FAILED = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
REACTING = 2.0  # seconds in which the main thread may react to a signal
ENDING = 30.0  # and in which the program may end, unless a library hid the signal

_kept = ""  # see `keeps`
_abandon: Callable[[], None] | None = None  # see `keeps`
_interrupted = False  # KeyboardInterrupt was raised, perhaps in a library's code


def keeps(words: str, abandon: Callable[[], None] | None = None) -> None:
    """Sets what is reported of an interrupt from now on: what is kept, and what to do.

    Args:
      words: for example "finished photos are kept; the same command resumes".
      abandon: removes what is of no use; it is called, in another thread, where the
        main thread does not react and the process ends as a kill would end it.
    """
    global _kept, _abandon
    _kept, _abandon = words, abandon


class Interruption:
    """The first signal that interrupts a program: SIGINT, SIGTERM or SIGHUP.

    It raises KeyboardInterrupt in the main thread. If that is busy outside of Python
    or does not end, and at a second SIGINT, the process ends as a kill would end it.
    """

    def __init__(self) -> None:
        """Waits for the first."""
        self.number: int | None = None
        self._noticed = 0
        self.over = threading.Event()  # the program has ended
        self._raised = threading.Event()

    def handle(self, number: int) -> None:
        """Is called in the main thread."""
        global _interrupted
        if not self._raised.is_set():  # else its end is in progress
            self.number, _interrupted = number, True
            self._raised.set()
            # What libraries' coroutines and threads meet that it ends: TensorStore
            # (0.1.86) reports each read that completes once its event loop is closed.
            warnings.simplefilter("ignore")
            sys.unraisablehook = lambda _: None
            raise KeyboardInterrupt

    def notice(self, number: int) -> None:
        """Is called in another thread."""
        self._noticed += 1
        if self._noticed == 1:
            reacted = self._raised.wait(REACTING)
            ends = not (reacted and self.over.wait(ENDING))
        else:
            ends = number == signal.SIGINT
        if ends:
            if _abandon:
                with contextlib.suppress(OSError):
                    _abandon()
            signals.end_now(number, self.line(number))

    @staticmethod
    def line(number: int) -> str:
        """Returns what is printed."""
        word = "interrupted" if number == signal.SIGINT else "terminated"
        return f"{word}: {_kept}" if _kept else word


def exit_status(program: Callable[[], None]) -> int:
    """Runs a program and returns its exit status.

    Args:
      program: the whole program, without arguments.

    Returns:
      0 when it returns, 2 after a `UserError`, whose message is printed on standard
      error as one line, or when the system refused a file or the disk is full, that of
      a `StoppedError`, 130 after an interrupt from the keyboard, 143 after SIGTERM and
      129 after SIGHUP, with a line about what is kept, and 141, without a message, when
      the reader of the output has closed it (`| head`). Any other exception is a defect
      of tokret and passes through with its traceback.
    """
    keeps("")
    # A terminal of another encoding than UTF-8 cannot print every name.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    interruption = Interruption()
    with signals.noticed(interruption.handle, interruption.notice):
        error: BaseException | None = None
        try:
            program()
            sys.stdout.flush()
        except BaseException as raised:
            error = raised
        interruption.over.set()
        # Whatever libraries made of an interrupt.
        number = interruption.number
        if number is None and isinstance(error, KeyboardInterrupt):
            number = signal.SIGINT
        if number is not None:
            _print_line(interruption.line(number))
            return 128 + number
        if error is None:
            return 0
        status = _report(error)
        if status is None:
            raise error
        return status


def _report(error: BaseException) -> int | None:
    """Prints an error; returns its exit status, None for a defect of tokret."""
    if isinstance(error, StoppedError):
        _print_line(one_line(error))
        return error.status
    if isinstance(error, UserError):
        return _print_error(str(error))
    if words := _system_words(error):
        return _print_error(words)
    if isinstance(error, BrokenPipeError):
        return 141 if _output_is_closed() else None
    if not isinstance(error, OSError):
        return None
    if error.filename is not None:
        return _print_error(f"{error.filename}: {error.strerror}")
    if error.errno not in DISK_FAILED:
        return None
    # It names no file: most likely standard output, redirected to one.
    status = _print_error(f"the output could not be written: {error.strerror}")
    drop_output()
    return status


def _system_words(error: BaseException) -> str:
    """Reports of libraries on memory and links in plain words; "" for other errors."""
    words = str(error)
    if isinstance(error, MemoryError) or words.startswith("RESOURCE_EXHAUSTED"):
        return f"out of memory: {words[:200]}; use smaller batches, photos or models"
    if isinstance(error, RuntimeError) and words.startswith("Symlink loop"):  # pathlib
        return f"{words}; name a file or folder that exists"
    return ""


def _print_error(message: str) -> int:
    _print_line(f"error: {one_line(message)}")
    return 2


def _print_line(line: str) -> None:
    with contextlib.suppress(OSError):  # of a terminal that is gone
        # One write, since threads that are still ending may write there too.
        sys.stderr.write(f"{with_urls(line)}\n")


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
    drop_output()
    return True


def drop_output() -> None:
    """Drops what standard output has buffered, and all later output.

    It would fail again at the exit.
    """
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def leave(status: int) -> NoReturn:
    """Ends the process with the status of `exit_status`.

    After an interrupt it ends without Python's own teardown: jaxlib (0.10) crashes in
    it if the interrupt fell into a compilation, and its threads are still compiling.
    """
    if _interrupted:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(status)
    sys.exit(status)
