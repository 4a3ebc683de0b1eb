"""Signals that stop a run, and the lock that keeps a second run out of its folder."""

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import jax
from jax.experimental import multihost_utils

from tokret.io.file_locks import held


class Interruption:
    """Catches SIGTERM, which clusters send before they take a machine away."""

    def __init__(self) -> None:
        """Creates one that has caught nothing."""
        self._received = False
        self._previous: Any = None

    def __enter__(self) -> "Interruption":
        """Starts to listen; where several processes run, JAX does so itself."""
        if jax.process_count() == 1:
            self._previous = signal.signal(signal.SIGTERM, self._receive)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Restores the previous handler."""
        if jax.process_count() == 1:
            signal.signal(signal.SIGTERM, self._previous)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received = True

    def requested(self, step: int) -> bool:
        """Whether to stop after this step; the same in all processes."""
        if jax.process_count() == 1:
            return self._received
        return bool(multihost_utils.reached_preemption_sync_point(step))


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
