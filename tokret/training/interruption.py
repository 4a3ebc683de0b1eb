"""Signals that stop a run, and the lock that keeps a second run out of its folder."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
from jax.experimental import multihost_utils

from tokret.io.file_locks import held


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[int], bool]]:
    """Catches SIGTERM, which clusters send before they take a machine away.

    Yields:
      A function of the step that was done: whether to stop after it. Its answer is the
      same in all processes.
    """
    if jax.process_count() > 1:  # JAX catches the signal
        yield lambda step: bool(multihost_utils.reached_preemption_sync_point(step))
        return
    received: list[int] = []
    previous = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    try:
        yield lambda step: bool(received)
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextlib.contextmanager
def lock_workdir(workdir: Path) -> Iterator[None]:
    """Keeps other runs out of a folder; the lock ends with the process.

    Raises:
      UserError: if another run is training in it.
    """
    if jax.process_index():
        yield
        return
    refusal = f"another run is training in {workdir}; stop it, or choose another folder"
    with held(workdir / ".lock", refusal):
        yield
