"""What a run says: a progress bar or lines, metrics.jsonl, TensorBoard files.

Of several processes the first alone says it.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from tqdm import tqdm

from tokret.errors import UserError
from tokret.io.atomic_files import write_whole
from tokret.runtime import cluster
from tokret.training.tensorboard import Events


class Reporter:
    """Writes the metrics of a run and shows how far it is; a context manager."""

    def __init__(
        self,
        workdir: Path,
        *,
        first_step: int,
        steps: int,
        batch_size: int,
        peak_images: Callable[[], float | None] = lambda: None,
    ):
        """Opens the run's metrics for appending.

        Args:
          workdir: the run's folder.
          first_step: steps done before this start.
          steps: all steps of the run.
          batch_size: images a step, for images/s.
          peak_images: says the images/s of a model FLOP utilisation (mfu) of 1, None if
            the devices' peak is not known; asked once, while the first step runs.
        """
        self._peak_images = peak_images
        self._peak: float | None = None
        self._steps = steps
        self._batch_size = batch_size
        self._last = (first_step, time.monotonic())
        self._waited = 0.0  # seconds for input since the last report
        self._nonfinite_steps: int | None = None
        self._compiled = False
        speaks = cluster.is_first()
        self._workdir = workdir
        metrics = workdir / "metrics.jsonl" if speaks else Path(os.devnull)
        with self._writing():
            if speaks:
                _forget_after(metrics, first_step)
            self._file = metrics.open("a")
            self._events = (
                Events(workdir / "tensorboard", first_step=first_step + 1)
                if speaks
                else None
            )
        self._bar = tqdm(
            total=steps,
            initial=first_step,
            unit="step",
            dynamic_ncols=True,
            disable=not (speaks and sys.stderr.isatty()),
        )

    def __enter__(self) -> "Reporter":
        """Returns itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Flushes and closes everything."""
        self._bar.close()
        for file in (self._file, self._events):
            # What does not fit on the disk any more was said by what ends the run.
            with contextlib.suppress(OSError):
                if file is not None:
                    file.close()

    def advance(self) -> None:
        """Counts one step on the bar; the clock starts behind the first, compiling."""
        if not self._compiled:
            self._compiled = True
            self._peak = self._peak_images()
            self._last = (self._last[0] + 1, time.monotonic())
        self._bar.update()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Measures how long the input is waited for."""
        begun = time.monotonic()
        yield
        if self._compiled:
            self._waited += time.monotonic() - begun

    def has_nonfinite(self, count: int) -> bool:
        """Says whether the number of updates left out grew since it was last asked.

        Args:
          count: the number; what the run began with is not news.
        """
        before, self._nonfinite_steps = self._nonfinite_steps, count
        return count > (before or 0)

    def nonfinite_step(self, step: int, photos: list[str]) -> None:
        """Reports an update that held no numbers, and what its batch showed."""
        line = {"step": step, "kind": "nonfinite_step", "photos": photos}
        self._write_line(line)
        self.say(
            f"warning: the update of step {step} held no numbers and was left out; "
            f"metrics.jsonl names its {len(photos)} photos"
        )

    def train(self, step: int, metrics: dict[str, float]) -> None:
        """Reports a training step.

        Args:
          step: steps done.
          metrics: loss in nats, top1 and top5 as fractions, learning_rate.
        """
        last_step, last_time = self._last
        now = time.monotonic()
        speed = (step - last_step) / max(now - last_time, 1e-9)
        self._last = (step, now)
        metrics = metrics | {
            "images_per_second": speed * self._batch_size,
            "seconds_per_step": 1 / max(speed, 1e-9),
            "waiting_for_input": min(self._waited / max(now - last_time, 1e-9), 1.0),
        }
        self._waited = 0.0
        if self._peak is not None:
            metrics["mfu"] = metrics["images_per_second"] / self._peak
        self._write(step, "train", metrics)
        left = (self._steps - step) / max(speed, 1e-9)
        text = (
            f"loss {metrics['loss']:.3f}  top1 {metrics['top1']:6.1%}  "
            f"{metrics['images_per_second']:.0f} images/s, "
            + (f"MFU {metrics['mfu']:.0%}, " if "mfu" in metrics else "")
            + f"{metrics['waiting_for_input']:.0%} waiting for input"
        )
        if self._bar.disable:
            print(  # noqa: T201
                f"step {step}/{self._steps}  {text}  {_clock(left)} left", flush=True
            )
        else:
            self._bar.set_postfix_str(text)

    def validation(self, step: int, epoch: int, metrics: dict[str, float]) -> None:
        """Reports a pass over the validation photos after an epoch."""
        self._write(step, "validation", metrics)
        self.say(
            f"epoch {epoch}  validation loss {metrics['loss']:.3f}  "
            f"top1 {metrics['top1']:.1%}  top5 {metrics['top5']:.1%}"
        )
        # The time of validation is not that of a training step.
        self._last = (step, time.monotonic())

    def say(self, line: str) -> None:
        """Prints a line, above the bar if there is one."""
        self._bar.write(line, file=sys.stdout)
        sys.stdout.flush()

    def _write(self, step: int, kind: str, metrics: dict[str, float]) -> None:
        self._write_line({"step": step, "kind": kind, **metrics})
        if self._events is not None:
            named = {f"{kind}/{name}": value for name, value in metrics.items()}
            with self._writing():
                self._events.scalars(step, named)

    def _write_line(self, line: dict[str, Any]) -> None:
        with self._writing():
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turns the disk's refusal into a user's line."""
        try:
            yield
        except OSError as error:
            raise UserError(
                f"the metrics of {self._workdir} cannot be written: {error.strerror}; "
                "the same command goes on from the newest checkpoint once that is "
                "mended"
            ) from error


def _forget_after(path: Path, step: int) -> None:
    """Drops the lines of steps that are done again, and one that was cut off."""
    if not path.exists():
        return
    lines = path.read_text(errors="replace").splitlines()
    kept = [line for line in lines if 0 <= _step_of(line) <= step]
    text = "".join(line + "\n" for line in kept)
    write_whole(path, text, path.with_suffix(".partial"))


def _step_of(line: str) -> int:
    """The step of a line, -1 of one that is damaged."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return -1


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
