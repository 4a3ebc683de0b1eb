"""Orbax checkpoints of a run: WORKDIR/checkpoints/STEP."""

import os
import re
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from orbax.checkpoint import v1 as ocp

from tokret.configuration import Config
from tokret.errors import StoppedError, UserError
from tokret.runtime import cluster
from tokret.training.checkpoint_contents import (
    STATE,
    check_names,
    differences,
    in_a_line,
)
from tokret.training.checkpoint_description import (
    UnreadableError,
    describe,
    read_description,
)
from tokret.training.retention import Retention
from tokret.training.state import TrainState

# What a process that died leaves behind: Orbax's half-written, our half-removed.
LEFT_OVER = ("*.orbax-checkpoint-tmp*", ".removed-*")


def list_steps(workdir: Path) -> list[int]:
    """Lists the steps of a run's complete checkpoints, oldest first."""
    folder = workdir / "checkpoints"
    if not folder.is_dir():
        return []
    return sorted(
        int(path.name)
        for path in folder.iterdir()
        if path.name.isdecimal()
        and str(int(path.name)) == path.name
        and path.is_dir()
        and not path.is_symlink()
    )


def list_measured(workdir: Path) -> dict[int, Mapping[str, float]]:
    """Returns what was measured at each step that has a checkpoint."""
    found: dict[int, Mapping[str, float]] = {}
    for step in list_steps(workdir):
        try:
            described = read_description(workdir / "checkpoints" / str(step))
        except UserError:  # it counts as one of the newest until it is restored
            described = None
        found[step] = described.measured if described else {}
    return found


def remove(checkpoint: Path) -> None:
    """Removes a checkpoint; one killed meanwhile leaves none that looks complete."""
    removed = checkpoint.with_name(f".removed-{checkpoint.name}")
    os.replace(checkpoint, removed)
    shutil.rmtree(removed)


class Checkpoints:
    """Saves states in the background, keeps the newest and the best.

    A context manager. A save is complete or it is not there: one that was in flight
    when the process died is swept away by the next start. Orbax's own manager of many
    checkpoints is not used: one damaged list of metrics keeps it from opening a folder,
    and what it was removing when it was killed looks complete.
    """

    def __init__(self, workdir: Path, retention: Retention, config: Config):
        """Opens the run's checkpoints.

        Args:
          workdir: the run's folder, of which no other run holds the lock.
          retention: which are kept.
          config: the run's, which every checkpoint repeats.
        """
        self._folder = workdir / "checkpoints"
        self._retention = retention
        self._config = config
        self._measured = list_measured(workdir)
        # The save in flight: its step, what was measured, and Orbax's answer.
        self._in_flight: tuple[int, Mapping[str, float], Any] | None = None

    def __enter__(self) -> "Checkpoints":
        """Makes the folder and clears it of what a killed process left behind."""
        self._folder.mkdir(exist_ok=True)
        self._sweep()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Waits for the save in flight."""
        try:
            self._finish()
        except UserError as failure:
            # A run that stops says that it saved, so this counts more.
            if error is None or isinstance(error, StoppedError):
                raise
            # Any other error ends the run; this one must not hide it.
            print(f"warning: {failure}", file=sys.stderr, flush=True)  # noqa: T201

    def _sweep(self) -> None:
        if not cluster.is_first():
            return
        for pattern in LEFT_OVER:
            for path in self._folder.glob(pattern):
                shutil.rmtree(path, ignore_errors=True)

    def recorded_config(self) -> Config | None:
        """Returns the config that the newest readable checkpoint repeats, if any."""
        for step in sorted(self._measured, reverse=True):
            try:
                described = read_description(self._folder / str(step))
            except UnreadableError:
                continue
            return described.config if described else None
        return None

    def latest_step(self) -> int | None:
        """Returns the newest complete checkpoint's step, None if there is none."""
        return max(self._measured, default=None)

    def save(
        self, state: TrainState, measured: Mapping[str, float] | None = None
    ) -> None:
        """Saves a state under its step; returns when the state may be overwritten.

        Args:
          state: what is saved.
          measured: what a validation of it measured, None if there was none.

        Raises:
          UserError: if this save, or the one before it, cannot be written.
        """
        self._finish()
        step = int(state.step)
        if step in self._measured:
            return
        measured = measured or {}
        try:
            answer = ocp.save_checkpointables_async(
                (self._folder / str(step)).resolve(),
                {STATE: state},
                custom_metadata=describe(self._config, step, measured),
            )
        except (OSError, ValueError) as error:
            self._fail(step, error)
        self._in_flight = (step, measured, answer)

    def _finish(self) -> None:
        """Waits for the save in flight, then removes what need not be kept."""
        if self._in_flight is None:
            return
        step, measured, answer = self._in_flight
        self._in_flight = None
        try:
            answer.result()
        except (OSError, ValueError) as error:
            self._fail(step, error)
        self._measured[step] = measured
        self.remove_superfluous()

    def _fail(self, step: int, error: Exception) -> NoReturn:
        self._sweep()
        latest = self.latest_step()
        raise UserError(
            f"{self._folder / str(step)} could not be written: {_reason(error)}; the "
            "same command goes on "
            + ("from the beginning" if latest is None else f"from step {latest}")
            + " once that is mended"
        ) from error

    def remove_superfluous(self) -> None:
        """Removes what need not be kept; an older one may be until one was restored."""
        for step in self._retention.superfluous(self._measured):
            del self._measured[step]
            if cluster.is_first():
                remove(self._folder / str(step))

    def put_aside(self, step: int) -> Path:
        """Moves a damaged checkpoint out of the way; returns where to."""
        aside = self._folder.parent / "damaged"
        aside.mkdir(exist_ok=True)
        target = aside / f"{step}-{time.time_ns()}"
        cluster.wait(f"none reads checkpoint {step}")
        if cluster.is_first():
            os.replace(self._folder / str(step), target)
        cluster.wait(f"checkpoint {step} is put aside")
        del self._measured[step]
        return target

    def restore(self, abstract_state: Any, step: int) -> TrainState:
        """Restores a state to its devices; every name and shape must agree.

        Class matrices alone may be padded for another mesh than the state's.

        Raises:
          UnreadableError: if the checkpoint is damaged.
          UserError: if it holds another model, another optimiser's state, or a newer
            tokret wrote it.
        """
        path = self._folder / str(step)
        read_description(path)
        wanted = {
            "params": abstract_state.params,
            "batch_stats": abstract_state.batch_stats,
        }
        check_names(path, wanted, ("params/", "batch_stats/"))
        optimiser = {"opt_state": abstract_state.opt_state}
        others = differences(path, optimiser, ("opt_state/",))
        if others:
            raise UserError(
                f"{path} holds another optimiser's state, or as another tokret keeps "
                "it; go on with the tokret that wrote it, or begin with these weights "
                "in another --workdir: "
                f"--config.init.checkpoint={self._folder.parent} ({in_a_line(others)})"
            )
        context = ocp.Context()
        # What is padded, or cut off, is classes that do not exist: zeros.
        context.array.loading.enable_padding_and_truncation = True
        try:
            with context:
                loaded = ocp.load_checkpointables(
                    path.resolve(), {STATE: abstract_state}
                )
        except (OSError, ValueError, KeyError) as error:
            raise UnreadableError(f"{path} is damaged ({str(error)[:200]})") from error
        state = loaded[STATE]
        assert isinstance(state, TrainState)
        return state


def _reason(error: Exception) -> str:
    """Says why the system refused, where it is known; else the library's words."""
    found = re.search(r"os_error_code='(\d+)'", str(error))
    code = int(found[1]) if found else getattr(error, "errno", None)
    return os.strerror(code) if code else str(error)[:300]
