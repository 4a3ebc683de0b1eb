"""A trace of some steps, for TensorBoard or Perfetto."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import jax

from tokret.errors import UserError
from tokret.io.remote.uploading import Uploads


def parse_steps(profile: str | None) -> range:
    """Reads the steps to trace, such as 10:20; None for none.

    Raises:
      UserError: if it is not two steps in order.
    """
    if profile is None:
        return range(0)
    match = re.fullmatch(r"(\d{1,9}):(\d{1,9})", profile)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise UserError(f"profile: {profile} is not two steps in order, such as 10:20")
    return range(int(match[1]), int(match[2]) + 1)


class Profile:
    """Traces some steps of a run into a folder."""

    def __init__(self, folder: Path, steps: range, uploads: Uploads | None = None):
        """Sets what is traced; `close` ends a trace that is in progress.

        A trace in object storage is given to `uploads` when it ends.
        """
        self._folder, self._steps = folder, steps
        self._uploads = uploads or Uploads()
        self._running = False

    @contextlib.contextmanager
    def step(self, step: int) -> Iterator[None]:
        """Annotates one step; starts the trace before the first, ends it after last."""
        if step not in self._steps:
            yield
            return
        if not self._running:
            jax.profiler.start_trace(str(self._folder))
            self._running = True
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
            yield
        if step == self._steps[-1]:
            self.close()

    def close(self) -> None:
        """Ends the trace, if it is in progress."""
        if self._running:
            self._running = False
            jax.effects_barrier()  # steps are dispatched before they are done
            jax.profiler.stop_trace()
            for file in filter(Path.is_file, self._folder.rglob("*")):
                self._uploads.changed(file)
