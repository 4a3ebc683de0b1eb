"""Progress of long work: a bar on a terminal, a line now and then elsewhere."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

from tqdm import tqdm

SECONDS = 30.0  # between two lines
FEW_SECONDS = 3.0  # until work on a terminal is slow


def has_terminal() -> bool:
    """Whether a bar is visible: on a terminal of size 0 x 0 tqdm prints blanks."""
    try:
        return sys.stderr.isatty() and all(os.get_terminal_size(sys.stderr.fileno()))
    except (OSError, ValueError):  # the latter for a file that is none of the system's
        return False


def progress_bar(items: Iterable[Any] | None = None, **options: Any) -> tqdm:
    """A bar of tqdm with some of its `options`, hidden where none is visible."""
    return tqdm(items, disable=not has_terminal(), **options)


@contextlib.contextmanager
def printed_if_slow(line: str) -> Iterator[None]:
    """Prints a line on standard error if what follows takes longer than some seconds.

    Where nobody watches a terminal, than the time between two lines of `Progress`.
    """
    wait = FEW_SECONDS if has_terminal() else SECONDS
    timer = threading.Timer(wait, tqdm.write, (line,), {"file": sys.stderr})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class Progress(contextlib.AbstractContextManager["Progress"]):
    """Reports on standard error how much is done, the rate, and the time left.

    Where all is done already, nothing is shown.

    Args:
      title: of the work, such as "extracting".
      total: how many there are.
      done: how many were done before.
      unit: what is counted, in the singular.
      shown: whether anything is printed; only one of several processes should.
      leave: whether the bar stays on the terminal at the end; one that does not is
        drawn over the bar that is there.
    """

    def __init__(
        self,
        title: str,
        total: int,
        done: int = 0,
        unit: str = "photo",
        shown: bool = True,
        leave: bool = True,
    ) -> None:
        self._title, self._unit = title, unit
        self._total, self._done = total, done
        shown = shown and done < total
        bar = shown and has_terminal()
        self._bar: Any = tqdm(
            total=total,
            initial=done,
            unit=unit,
            desc=title,
            disable=not bar,
            leave=leave,
            position=None if leave else 0,
        )
        self._lines = shown and not bar
        self._due = time.monotonic() + SECONDS
        self._first: tuple[float, int] | None = None  # time and count of the first

    def update(self, count: int) -> None:
        """Adds to what is done."""
        if not count:
            return
        self._bar.update(count)
        self._done += count
        now = time.monotonic()
        # The first part may have taken a compilation.
        self._first = self._first or (now, self._done)
        if self._lines and now >= self._due:
            self._due = now + SECONDS
            tqdm.write(self._line(now), file=sys.stderr)

    def _line(self, now: float) -> str:
        start, before = self._first or (now, self._done)
        line = f"{self._title}: {self._done} of {self._total} {self._unit}s"
        if now > start and self._done > before:
            rate = (self._done - before) / (now - start)
            left = tqdm.format_interval((self._total - self._done) / rate)
            line += f", {rate:.3g} {self._unit}s/s, {left} left"
        return line

    def __exit__(self, *_: object) -> None:
        """Closes the bar."""
        self._bar.close()
