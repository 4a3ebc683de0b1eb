"""The output of a run: a progress bar or lines, metrics, TensorBoard files.

Of several processes only the first writes.
"""

import contextlib
import errno
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tokret.errors import UserError
from tokret.io.remote.uploading import Uploads
from tokret.runtime import cluster
from tokret.runtime.ending import drop_output
from tokret.runtime.progress import has_terminal
from tokret.training.metrics_lines import open_metrics

COMPILING = "compiling the first step"
BAR = "{n_fmt}/{total_fmt}|{bar}| {desc}"


class Reporter:
    """Writes the metrics of a run and shows its progress."""

    def __init__(
        self,
        workdir: Path,
        *,
        first_step: int,
        steps: int,
        batch_size: int,
        nonfinite_steps: int = 0,
        peak_images: Callable[[], float | None] = lambda: None,
        uploads: Uploads | None = None,
    ):
        """Opens the run's metrics for appending.

        Of all `steps`, `first_step` were done before this start, in which
        `nonfinite_steps` updates were skipped. `peak_images` returns the images/s at a
        model FLOP utilisation (MFU) of 1, None if the devices' peak is unknown; it is
        called once, while the first step runs. Files of a run in object storage are
        given to `uploads`.
        """
        self.output_is_closed = False
        self._peak_images = peak_images
        self._peak: float | None = None
        self._steps = steps
        self._batch_size = batch_size
        self._last = (first_step, time.monotonic())
        self._waited = 0.0  # seconds for input since the last report
        self._nonfinite_steps = nonfinite_steps
        self._compiled = False
        self._workdir = workdir
        writes = cluster.is_first()
        self._metrics, self._events = None, None
        uploads = uploads or Uploads()
        with self._writing():
            if writes:
                # Only here, since its import of protobuf takes long.
                from tokret.training.tensorboard import Events

                self._metrics = open_metrics(
                    workdir, first_step, uploads, self.print_line
                )
                folder = workdir / "tensorboard"
                self._events = Events(folder, uploads, first_step=first_step + 1)
        self._bar = tqdm(
            total=steps,
            initial=first_step,
            unit="step",
            dynamic_ncols=True,
            desc=COMPILING,
            bar_format=BAR,
            disable=not (writes and has_terminal()),
        )
        if writes and self._bar.disable:
            self.print_line(COMPILING)

    def close(self) -> None:
        """Flushes and closes everything."""
        self._bar.close()
        for file in (self._metrics, self._events):
            # The error that ends the run has reported a full disk already.
            with contextlib.suppress(OSError):
                if file is not None:
                    file.close()

    def advance(self) -> None:
        """Advances the bar by a step; timing starts after the first, which compiles."""
        if not self._compiled:
            self._compiled = True
            self._peak = self._peak_images()
            self._last = (self._last[0] + 1, time.monotonic())
            self._bar.set_description_str("", refresh=False)
        self._bar.update()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Measures the time spent waiting for input."""
        start = time.monotonic()
        yield
        if self._compiled:
            self._waited += time.monotonic() - start

    def nonfinite_step(
        self, count: int, step: int, file_names: Callable[[], list[str]]
    ) -> None:
        """Reports a non-finite update, unless none was skipped since the last call.

        `count` updates were skipped so far, the last at `step`; `file_names` returns
        the names of the photos in its batch.
        """
        before, self._nonfinite_steps = self._nonfinite_steps, count
        if count <= before:
            return
        photos = file_names()
        self._write_line({"step": step, "kind": "nonfinite_step", "photos": photos})
        if self._metrics is not None:
            self.print_line(
                f"warning: the update of step {step} was non-finite and was skipped; "
                f"{self._metrics.name} names its {len(photos)} photos"
            )

    def train(self, step: int, metrics: dict[str, float]) -> None:
        """Reports the metrics of a training step: those of `train_step`, the rate.

        A rate needs a step after the first, which compiles; until then there is none.
        """
        (last_step, last_time), now = self._last, time.monotonic()
        timed, seconds = step - last_step, now - last_time
        self._last = (step, now)
        left = ""
        # None where it is the first step, which compiles.
        if timed:
            rates = self._rates(timed, max(seconds, 1e-9))
            metrics = metrics | rates
            seconds_left = (self._steps - step) * rates["seconds_per_step"]
            left = tqdm.format_interval(seconds_left)
        self._waited = 0.0
        self._write(step, "train", metrics)
        if self._bar.disable:
            self.print_line(f"step {step}/{self._steps}  {_line(metrics, left)}")
        else:
            self._bar.set_description_str(_short(metrics, left))

    def _rates(self, steps: int, seconds: float) -> dict[str, float]:
        rates = {
            "images_per_second": steps * self._batch_size / seconds,
            "seconds_per_step": seconds / steps,
            "waiting_for_input": min(self._waited / seconds, 1.0),
        }
        if self._peak is not None:
            rates["mfu"] = rates["images_per_second"] / self._peak
        return rates

    def validation(self, step: int, epoch: int, metrics: dict[str, float]) -> None:
        """Reports a pass over the validation photos after an epoch."""
        self._write(step, "validation", metrics)
        self.print_line(
            f"epoch {epoch}  validation loss {metrics['loss']:.3f}  "
            f"top1 {metrics['top1']:.1%}  top5 {metrics['top5']:.1%}"
        )
        # Validation does not count as time of the next training step.
        self._last = (step, time.monotonic())

    def print_line(self, line: str) -> None:
        """Prints a line, above the bar if there is one.

        Where the reader of a pipe (`| head`) or the terminal is gone, this one and all
        later lines are lost, and `output_is_closed`.
        """
        try:
            self._bar.write(line, file=sys.stdout)
            sys.stdout.flush()
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):
                raise
            self.output_is_closed = True
            drop_output()

    def _write(self, step: int, kind: str, metrics: dict[str, float]) -> None:
        self._write_line({"step": step, "kind": kind, **metrics})
        if self._events is not None:
            named = {f"{kind}/{name}": value for name, value in metrics.items()}
            with self._writing():
                self._events.scalars(step, named)

    def _write_line(self, line: dict[str, Any]) -> None:
        if self._metrics is not None:
            with self._writing():
                self._metrics.write(line)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turns the system's refusal into a UserError."""
        try:
            yield
        except OSError as error:
            raise UserError(
                f"the metrics of {self._workdir} cannot be written: {error.strerror}; "
                "once that is fixed, the same command resumes from the newest "
                "checkpoint"
            ) from error


def _line(metrics: dict[str, float], left: str) -> str:
    """The text of a line; without a time left there are no rates."""
    text = f"loss {metrics['loss']:.3f}  top1 {metrics['top1']:6.1%}"
    if left:
        text += f"  {metrics['images_per_second']:.0f} images/s, "
        text += f"MFU {metrics['mfu']:.0%}, " if "mfu" in metrics else ""
        text += f"{metrics['waiting_for_input']:.0%} waiting for input  {left} left"
    return text


def _short(metrics: dict[str, float], left: str) -> str:
    """The text beside a bar: both fit into 80 columns, and a terminal cuts the end."""
    text = f"loss {metrics['loss']:.2f} top1 {metrics['top1']:.1%}"
    if left:
        text = f"{left} left, {text} {metrics['images_per_second']:.0f} img/s"
        text += f" {metrics['waiting_for_input']:.0%} waiting"
        text += f" MFU {metrics['mfu']:.0%}" if "mfu" in metrics else ""
    return text
