"""Signals, noticed at once even while XLA compiles.

Python calls a signal's handler in the main thread, between two of its own instructions:
not before a call into C++ returns, which may compile for minutes. So a thread of its
own reads the numbers of signals from a pipe (`signal.set_wakeup_fd`).
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

# The last when a terminal closes, or the connection to it is lost.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def noticed(
    handler: Callable[[int], None],
    notice: Callable[[int], None],
    numbers: Sequence[int] = ENDING,
) -> Iterator[None]:
    """Handles signals in the main thread when it can, and notices them at once.

    Signals that the process ignores, as nohup has it, stay ignored. Outside the main
    thread nothing is changed.

    Args:
      handler: called in the main thread with a signal's number; it may raise.
      notice: called with it in another thread, as soon as the signal arrives.
      numbers: the signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, _: Any) -> None:
        handler(number)

    def watch() -> None:
        while received := os.read(reader, 1):
            # Others may have replaced the handler, or watch other signals.
            if signal.getsignal(received[0]) is handle:
                notice(received[0])
        os.close(reader)

    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    outer = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    replaced = {
        number: signal.signal(number, handle)
        for number in numbers
        if signal.getsignal(number) not in (signal.SIG_IGN, None)
    }
    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        for number, previous in replaced.items():
            signal.signal(number, previous)
        signal.set_wakeup_fd(outer)
        os.close(writer)


def report(line: str) -> None:
    """Writes a line to standard error from any thread, below a progress bar."""
    start = "\n" if sys.stderr.isatty() else ""
    with contextlib.suppress(OSError):
        os.write(2, f"{start}{line}\n".encode())


def end_now(number: int, line: str) -> NoReturn:
    """Ends the process from any thread, as a kill would, with a line and a status."""
    report(line)
    os._exit(128 + number)
