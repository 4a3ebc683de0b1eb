"""Signals that stop a run after it has saved its state."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils

from tokret.runtime import signals

AGAIN = "the same command resumes from the newest checkpoint, if there is one"


class StopRequests:
    """Requests to stop a run: SIGTERM of clusters, SIGHUP of terminals, or Ctrl-C.

    The first one stops the run after the step in progress, which is saved. A second
    Ctrl-C, or one before this start of the run has done a step, when there is nothing
    to save, ends the process at once.
    """

    def __init__(self) -> None:
        """Waits for the first."""
        self._received: list[int] = []
        self._status: int | None = None
        self._noticed = 0
        self._steps_done = False
        self._reported = threading.Event()

    def __call__(self, step: int) -> bool:
        """Returns whether to stop after a step that was done; all processes agree."""
        self._steps_done = True
        if jax.process_count() > 1:
            return bool(multihost_utils.reached_preemption_sync_point(step))
        return bool(self._received)

    def request(self, status: int) -> None:
        """Requests a stop from within, which ends with a status of its own."""
        if self._status is None and not self._received:
            self._status = status
            os.kill(os.getpid(), signal.SIGTERM)

    @property
    def status(self) -> int:
        """The exit status: of a `request`, 130 if Ctrl-C was first, else 75."""
        if self._status is not None:
            return self._status
        return 130 if self._received[:1] == [signal.SIGINT] else 75

    def handle(self, number: int) -> None:
        """Is called in the main thread."""
        self._reported.wait(1.0)  # before the line that the run is stopped
        self._received.append(number)

    def notice(self, number: int) -> None:
        """Is called in another thread."""
        self._noticed += 1
        if number != signal.SIGINT:
            if number == signal.SIGHUP and jax.process_count() > 1:
                os.kill(os.getpid(), signal.SIGTERM)  # JAX notifies the others
            self._reported.set()
            return
        if self._noticed > 1:
            signals.end_now(number, f"interrupted again: nothing is saved; {AGAIN}")
        if jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)  # JAX notifies the others
        elif not self._steps_done:
            signals.end_now(number, f"interrupted: nothing is lost; {AGAIN}")
        signals.report(
            "interrupted: the step in progress will be saved; Ctrl-C again ends at once"
        )
        self._reported.set()


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequests]:
    """Catches the signals that request a stop."""
    requests = StopRequests()
    # Of several processes JAX catches SIGTERM.
    alone = jax.process_count() == 1
    numbers = signals.ENDING if alone else (signal.SIGINT, signal.SIGHUP)
    with signals.noticed(requests.handle, requests.notice, numbers):
        yield requests
