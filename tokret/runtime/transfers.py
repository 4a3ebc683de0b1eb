"""How far a fetch from object storage is: a bar on a terminal, a line elsewhere."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

from tokret.runtime.progress import SECONDS, has_terminal

DELAY = 1.0  # seconds; what is faster needs no bar


@contextmanager
def transfer_bar(url: str) -> Iterator[Callable[[int, int], None]]:
    """Shows how much of a URL is fetched; yields what takes bytes done and in all.

    In other threads than the main one nothing is shown: it fetches ahead.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda done, total: None
        return
    lines, start = not has_terminal(), time.monotonic()
    due = start + SECONDS
    lock = threading.Lock()
    bar = tqdm(
        desc=f"fetching {url}",
        unit="B",
        unit_scale=True,
        disable=lines,
        leave=False,
        delay=DELAY,
    )

    def update(done: int, total: int) -> None:
        nonlocal due
        with lock:  # several threads fetch
            bar.total = total
            bar.update(done - bar.n)
            if lines and time.monotonic() >= due:
                due = time.monotonic() + SECONDS
                line = f"fetching {url}: {done / 1e6:,.0f} of {total / 1e6:,.0f} MB"
                print(line, file=sys.stderr, flush=True)  # noqa: T201

    with bar:
        yield update
