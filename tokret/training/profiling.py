"""A trace of some steps, for TensorBoard or Perfetto."""

import contextlib
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import jax

from tokret.errors import UserError


@dataclasses.dataclass
class Profile:
    """Traces the steps from `first` to `last`; none if both are 0."""

    first: int = 0
    last: int = 0
    _folder: Path | None = None
    _running: bool = False

    @classmethod
    def of_flag(cls, value: str | None) -> "Profile":
        """Reads a flag such as 10:20.

        Raises:
          UserError: if it is not two steps, the first of which comes first.
        """
        if value is None:
            return cls()
        match = re.fullmatch(r"(\d{1,9}):(\d{1,9})", value)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise UserError(f"--profile={value}: name two steps, as 10:20")
        return cls(int(match[1]), int(match[2]))

    @contextlib.contextmanager
    def writing_to(self, folder: Path) -> Iterator[None]:
        """Ends a trace that is under way, whatever happens."""
        self._folder = folder
        try:
            yield
        finally:
            self._end()

    @contextlib.contextmanager
    def of_step(self, step: int) -> Iterator[None]:
        """Marks one step, and begins and ends the trace around its steps."""
        if not self.first <= step <= self.last:
            yield
            return
        if not self._running:
            jax.profiler.start_trace(str(self._folder))
            self._running = True
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
            yield
        if step == self.last:
            self._end()

    def _end(self) -> None:
        if self._running:
            self._running = False
            jax.effects_barrier()  # steps are dispatched ahead of their work
            jax.profiler.stop_trace()
