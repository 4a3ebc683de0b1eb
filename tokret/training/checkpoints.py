"""Orbax checkpoints of a run: WORKDIR/checkpoints/STEP."""

import contextlib
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NoReturn

from tokret.config.tree import Config, InferenceConfig
from tokret.errors import StoppedError, UserError
from tokret.io.remote.fetching import drop
from tokret.io.remote.urls import url_of, with_urls
from tokret.runtime import cluster
from tokret.training import remote_checkpoints
from tokret.training.checkpoint_arrays import (
    SAVING,
    SavedArrays,
    in_background,
    open_arrays,
    start_saving,
)
from tokret.training.checkpoint_digests import UnreadableError, has_digests
from tokret.training.checkpoint_metadata import make_metadata, read_metadata
from tokret.training.remote_runs import drop_arrays
from tokret.training.retention import steps_to_remove

# What a killed process leaves, half-written or half-removed.
INCOMPLETE = (f"{SAVING}*", ".removed-*")


def list_steps(workdir: Path) -> list[int]:
    """Lists the steps of a run's complete checkpoints, oldest first.

    Those of a run in object storage are as `remote_runs.fetch_run` found them.
    """
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
        and (url_of(path) is None or has_digests(path))
    )


def list_measured(workdir: Path) -> dict[int, Mapping[str, float]]:
    """Returns the validation metrics of each step whose checkpoint is known to be its.

    Others count as none: not as the best, nor as one of the newest.
    """
    found: dict[int, Mapping[str, float]] = {}
    for step in list_steps(workdir):
        with contextlib.suppress(UserError):
            found[step] = read_metadata(workdir / "checkpoints" / str(step)).measured
    return found


def remove(checkpoint: Path) -> None:
    """Removes a checkpoint; one killed meanwhile leaves none that looks complete."""
    url = url_of(checkpoint)
    if url is not None:
        remote_checkpoints.remove_objects(url)
        drop(checkpoint)
        return
    removed = checkpoint.with_name(f".removed-{checkpoint.name}")
    os.replace(checkpoint, removed)
    shutil.rmtree(removed)


class Checkpoints:
    """Saves states in the background, keeps the newest and the best.

    A context manager. A checkpoint is complete or does not exist: the next start of the
    run removes one that was being written when the process died. Orbax's own manager of
    checkpoints is not used: one damaged list of metrics keeps it from opening a folder,
    and what it was removing when it was killed looks complete.
    """

    def __init__(
        self,
        workdir: Path,
        config: Config,
        before_commit: Callable[[], None] = lambda: None,
    ):
        """Opens the checkpoints of a folder that this run has locked.

        Before one in object storage counts, `before_commit` is called in a thread.
        """
        self._folder = workdir / "checkpoints"
        self._is_remote = url_of(workdir) is not None
        self._config = config
        self._before_commit = before_commit
        # The save in progress: its step, and when it is complete.
        self._saving: tuple[int, Future[None]] | None = None
        self._saved: int | None = None  # the step of the save before

    def __enter__(self) -> "Checkpoints":
        """Makes the folder and removes what a killed process left."""
        self._folder.mkdir(exist_ok=True)
        self._remove_incomplete()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Waits for the save in progress."""
        try:
            self._finish_saving()
            if self._is_remote and (kind is None or kind is StoppedError):
                # The first may upload for longer than JAX lets others wait at the end.
                cluster.wait("the last checkpoint is uploaded")
        except UserError as failure:
            # A run that stops reports that it saved, so this error is more important.
            if kind is None or issubclass(kind, StoppedError):
                raise
            # Any other error ends the run; this one must not hide it.
            line = with_urls(f"warning: {failure}")
            print(line, file=sys.stderr, flush=True)  # noqa: T201

    def _remove_incomplete(self) -> None:
        if cluster.is_first():
            for pattern in INCOMPLETE:
                for path in self._folder.glob(pattern):
                    shutil.rmtree(path, ignore_errors=True)
            if self._is_remote:
                remote_checkpoints.remove_incomplete(self._folder)

    def recorded_config(self) -> InferenceConfig | None:
        """Returns the config that the newest readable checkpoint repeats, if any."""
        for step in reversed(list_steps(self._folder.parent)):
            try:
                return read_metadata(self._folder / str(step)).config
            except UnreadableError:
                continue
        return None

    def latest_step(self) -> int | None:
        """Returns the newest step that the folder has a checkpoint of, or None."""
        return max(list_measured(self._folder.parent), default=None)

    def save(self, state: Any, measured: Mapping[str, float] | None = None) -> None:
        """Saves a `TrainState` under its step, with metrics of its validation, if any.

        It returns when the state may be overwritten.

        Raises:
          UserError: if this save, or the one before it, cannot be written.
        """
        self._finish_saving()
        step = int(state.step)
        if step == self._saved:
            return
        metadata = make_metadata(self._config, step, measured)
        path, before_commit = self._folder / str(step), self._before_commit
        try:
            saving = start_saving(path, state, metadata, before_commit)
        except (OSError, ValueError) as error:
            self._fail(step, error)
        if self._is_remote:  # training continues while the storage is slow
            saving = in_background(self._prune_after, saving)
        self._saving = (step, saving)

    def _prune_after(self, saving: Future[None]) -> None:
        saving.result()
        self.prune()

    def check(self) -> None:
        """Raises the error of a save in object storage, once it has failed."""
        if self._is_remote and self._saving and self._saving[1].done():
            self._finish_saving()

    def _finish_saving(self) -> None:
        """Waits for the save in progress, then removes what need not be kept."""
        if self._saving is None:
            return
        step, saving = self._saving
        self._saving = None
        try:
            saving.result()
        except (OSError, ValueError) as error:
            self._fail(step, error)
        self._saved = step
        if not self._is_remote:
            self.prune()

    def _fail(self, step: int, error: Exception) -> NoReturn:
        if not self._is_remote:  # there the next start does
            self._remove_incomplete()
        latest = self.latest_step()
        resumed = "the beginning" if latest is None else f"step {latest}"
        raise UserError(
            f"{self._folder / str(step)} could not be written: {_reason(error)}; once "
            f"that is fixed, the same command resumes from {resumed}"
        ) from error

    def prune(self) -> None:
        """Removes what need not be kept; call it once a checkpoint was restored.

        It looks at the folder each time, since others may have changed it.
        """
        if not cluster.is_first():
            return
        run, measured = self._config.run, list_measured(self._folder.parent)
        for step in steps_to_remove(measured, keep=run.keep, keep_best=run.keep_best):
            remove(self._folder / str(step))

    def move_damaged(self, step: int) -> Path:
        """Moves a damaged checkpoint out of the folder; returns its new path."""
        folder = self._folder.parent / "damaged"
        folder.mkdir(exist_ok=True)
        target = folder / f"{step}-{time.time_ns()}"
        cluster.wait(f"none reads checkpoint {step}")
        if cluster.is_first() and self._is_remote:
            remote_checkpoints.move(self._folder / str(step), target)
        elif cluster.is_first():
            os.replace(self._folder / str(step), target)
        cluster.wait(f"checkpoint {step} is moved")
        return target

    def restore(self, abstract_state: Any, step: int) -> Any:
        """Restores a state to its devices; every name and shape must agree.

        Class matrices alone may be padded for another mesh than the state's.

        Raises:
          UnreadableError: if the checkpoint is damaged.
          UserError: if it is of another model or optimiser, or a newer tokret wrote it.
        """
        saved = self._open(step)
        saved.check_names(abstract_state, ("params/", "batch_stats/"))
        saved.check_names(
            abstract_state,
            ("opt_state/",),
            "holds the state of another optimiser, or of another version of tokret's; "
            "resume with the version that wrote it, or start another run from the "
            f"weights of {self._folder.parent}",
        )
        # Only rows of classes that do not exist are padded or cut: zeros.
        state = saved.load(abstract_state, padded=True)
        drop_arrays(saved.path)
        return state

    def _open(self, step: int) -> SavedArrays:
        """Opens a checkpoint in all processes, or in none.

        One that loads arrays waits in Orbax for the others, which must not have left.
        """
        path, saved, problem = self._folder / str(step), None, ""
        try:
            read_metadata(path)
            saved = open_arrays(path)
        except UnreadableError as error:
            problem = with_urls(error.damage)  # each process has a copy of its own
        problem = max(cluster.gather_texts(problem))
        if problem or saved is None:
            raise UnreadableError(problem)
        return saved


def _reason(error: Exception) -> str:
    """Returns why the system refused, if the error has its code, else its message."""
    found = re.search(r"os_error_code='(\d+)'", str(error))
    code = int(found[1]) if found else getattr(error, "errno", None)
    return os.strerror(code) if code else str(error)[:300]
