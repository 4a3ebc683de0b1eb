"""Orbax checkpoints of a run: WORKDIR/checkpoints/STEP."""

import os
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from tokret import cluster
from tokret.errors import UserError
from tokret.training.state import TrainState

STATE = "state"


class UnreadableError(UserError):
    """A checkpoint that is torn, cut short or damaged: an older one may be whole."""


class Checkpoints:
    """Saves states in the background and keeps the newest; a context manager.

    A save is complete or it is not there: one that was in flight when the process died
    is ignored by the next start.
    """

    def __init__(self, workdir: Path, *, keep: int):
        """Opens the run's checkpoints.

        Args:
          workdir: the run's folder.
          keep: how many of the newest are kept.
        """
        if keep < 1:
            raise UserError(f"config.run.keep is {keep}; at least 1 must be kept")
        self._folder = workdir / "checkpoints"
        self._keep = keep
        self._checkpointer = self._open()

    def _open(self) -> ocp.training.Checkpointer:
        # Every save that is asked for: by default Orbax passes over those that come
        # while one is in flight.
        every = ocp.training.save_decision_policies.FixedIntervalPolicy(1)
        latest = ocp.training.preservation_policies.LatestN(self._keep)
        return ocp.training.Checkpointer(
            self._folder.resolve(),
            save_decision_policy=every,
            preservation_policy=latest,
        )

    def __enter__(self) -> "Checkpoints":
        """Returns itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Waits for saves in flight."""
        self._checkpointer.close()

    def latest_step(self) -> int | None:
        """Returns the newest complete checkpoint's step, None if there is none."""
        latest = self._checkpointer.latest
        return None if latest is None else int(latest.step)

    def save(self, state: TrainState) -> None:
        """Saves a state under its step; returns when the state may be overwritten."""
        step = int(state.step)
        if self.latest_step() != step:
            self._checkpointer.save_checkpointables_async(step, {STATE: state})

    def put_aside(self, step: int) -> Path:
        """Moves a damaged checkpoint out of the way; returns where to."""
        aside = self._folder.parent / "damaged"
        aside.mkdir(exist_ok=True)
        target = aside / f"{step}-{time.time_ns()}"
        cluster.wait(f"none reads checkpoint {step}")
        if cluster.is_first():
            os.replace(self._folder / str(step), target)
        cluster.wait(f"checkpoint {step} is put aside")
        self._checkpointer.close()
        self._checkpointer = self._open()
        return target

    def restore(self, abstract_state: Any, step: int) -> TrainState:
        """Restores a state to its devices; every name and shape must agree.

        Raises:
          UserError: if the checkpoint holds another model.
        """
        path = self._folder / str(step)
        wanted = {
            "params": abstract_state.params,
            "batch_stats": abstract_state.batch_stats,
        }
        check_names(path, wanted, ("params/", "batch_stats/"))
        try:
            loaded = self._checkpointer.load_checkpointables(
                step, {STATE: abstract_state}
            )
        except (OSError, ValueError, KeyError) as error:
            raise UnreadableError(f"{path} is damaged ({str(error)[:200]})") from error
        state = loaded[STATE]
        assert isinstance(state, TrainState)
        return state


def check_names(path: Path, wanted: Any, within: tuple[str, ...]) -> None:
    """Compares names and shapes before anything is loaded.

    Orbax alone gives back what it was asked for where a name is missing.

    Args:
      path: the checkpoint.
      wanted: {"params": ..., "batch_stats": ...} of shapes.
      within: only names that begin with one of these are compared.

    Raises:
      UserError: if the checkpoint cannot be read; or listing every name that is
        missing, in the way, or of another shape.
    """
    there, here = (
        {
            name: tuple(leaf.shape)
            for name, leaf in _by_name(tree).items()
            if name.startswith(within)
        }
        for tree in (read_metadata(path), wanted)
    )
    problems = [f"{name} is missing" for name in here.keys() - there.keys()]
    problems += [f"{name} is not the model's" for name in there.keys() - here.keys()]
    problems += [
        f"{name} has shape {there[name]}, not {here[name]}"
        for name in here.keys() & there.keys()
        if there[name] != here[name]
    ]
    if problems:
        raise UserError(
            f"{path} does not hold this model: {'; '.join(sorted(problems))}"
        )


def _by_name(tree: Any) -> dict[str, Any]:
    return {
        jax.tree_util.keystr(key, simple=True, separator="/"): leaf
        for key, leaf in jax.tree.leaves_with_path(tree)
    }


def read_metadata(path: Path) -> Any:
    """Returns shapes and dtypes of a checkpoint's weights, by name.

    Raises:
      UserError: if the checkpoint cannot be read.
    """
    try:
        saved = ocp.checkpointables_metadata(path.resolve()).metadata[STATE]
        if saved is None:
            raise ValueError("its list of arrays is missing or damaged")
        names = ("params", "batch_stats", "average")  # only runs keep the last
        return {name: saved[name] for name in names if name in saved}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnreadableError(
            f"{path} cannot be read as a checkpoint ({error}); remove it to use the "
            "one before it"
        ) from error
