"""A run that is told to stop, and two runs in one folder."""

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
    """Notices SIGTERM, which clusters send before they take a machine away."""

    def __init__(self) -> None:
        """Makes one that has noticed nothing."""
        self._seen = False
        self._before: Any = None

    def __enter__(self) -> "Interruption":
        """Listens from here on; where several processes run, JAX does so itself."""
        if jax.process_count() == 1:
            self._before = signal.signal(signal.SIGTERM, self._notice)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Listens no more."""
        if jax.process_count() == 1:
            signal.signal(signal.SIGTERM, self._before)

    def _notice(self, number: int, frame: FrameType | None) -> None:
        self._seen = True

    def asked(self, step: int) -> bool:
        """Says whether to stop after this step; all processes get the same answer."""
        if jax.process_count() == 1:
            return self._seen
        return bool(multihost_utils.reached_preemption_sync_point(step))


@contextlib.contextmanager
def alone_in(workdir: Path) -> Iterator[None]:
    """Keeps other runs out of a folder; the lock goes with the process.

    Raises:
      UserError: if another run is in it.
    """
    if jax.process_index():
        yield
        return
    refusal = (
        f"another run is training in {workdir}; stop it, or choose another --workdir"
    )
    with held(workdir / ".lock", refusal):
        yield
