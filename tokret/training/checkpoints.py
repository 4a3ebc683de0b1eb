"""Orbax checkpoints of a run: WORKDIR/checkpoints/STEP."""

from pathlib import Path
from types import TracebackType
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from tokret.errors import UserError
from tokret.training.state import TrainState

STATE = "state"


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
        # Every save that is asked for: by default Orbax passes over those that come
        # while one is in flight.
        every = ocp.training.save_decision_policies.FixedIntervalPolicy(1)
        latest = ocp.training.preservation_policies.LatestN(keep)
        self._checkpointer = ocp.training.Checkpointer(
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
        _check_names(path, wanted)
        loaded = self._checkpointer.load_checkpointables(step, {STATE: abstract_state})
        state = loaded[STATE]
        assert isinstance(state, TrainState)
        return state


def _check_names(path: Path, wanted: Any, unused: tuple[str, ...] = ()) -> None:
    """Compares names and shapes before anything is loaded.

    Orbax alone gives back what it was asked for where a name is missing.

    Args:
      path: the checkpoint.
      wanted: {"params": ..., "batch_stats": ...} of the model.
      unused: names may be in the checkpoint that begin with these.

    Raises:
      UserError: if the checkpoint cannot be read; or listing every name that is
        missing, in the way, or of another shape.
    """
    try:
        saved = ocp.checkpointables_metadata(path.resolve()).metadata[STATE]
        if saved is None:
            raise ValueError("its list of arrays is missing")
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{path} cannot be read as a checkpoint ({error}); remove it to use the "
            "one before it"
        ) from error
    there, here = (
        {
            jax.tree_util.keystr(key, simple=True, separator="/"): leaf.shape
            for key, leaf in jax.tree.leaves_with_path(
                {name: tree[name] for name in ("params", "batch_stats")}
            )
        }
        for tree in (saved, wanted)
    )
    problems = [f"{name} is missing" for name in here.keys() - there.keys()]
    problems += [
        f"{name} is not the model's"
        for name in there.keys() - here.keys()
        if not name.startswith(unused)
    ]
    problems += [
        f"{name} has shape {there[name]}, not {here[name]}"
        for name in here.keys() & there.keys()
        if tuple(there[name]) != tuple(here[name])
    ]
    if problems:
        raise UserError(
            f"{path} does not hold this model: {'; '.join(sorted(problems))}"
        )


def list_steps(workdir: Path) -> list[int]:
    """Lists the steps of a run's complete checkpoints, oldest first."""
    folder = workdir / "checkpoints"
    if not folder.is_dir():
        return []
    with ocp.training.Checkpointer(folder.resolve()) as checkpointer:
        return sorted(int(found.step) for found in checkpointer.checkpoints)


def restore_weights(
    workdir: Path, variables: Any, step: int | None = None
) -> tuple[Any, int]:
    """Restores the model's variables alone, without classifier and optimiser.

    Args:
      workdir: the run's folder.
      variables: shapes, dtypes and shardings, {"params": ..., "batch_stats": ...}.
      step: the checkpoint's step; None takes the newest.

    Returns:
      The variables and the step they come from.

    Raises:
      UserError: if there is no such checkpoint, or it holds another model.
    """
    steps = list_steps(workdir)
    if not steps:
        raise UserError(
            f"{workdir} holds no checkpoint; train first: "
            f"python train.py --config=... --workdir={workdir}"
        )
    if step is None:
        step = steps[-1]
    if step not in steps:
        raise UserError(
            f"--step={step}: {workdir} holds no such checkpoint; it has "
            f"{', '.join(map(str, steps))}"
        )
    wanted = {
        "params": {"model": variables["params"]},
        "batch_stats": variables["batch_stats"],
    }
    path = workdir / "checkpoints" / str(step)
    _check_names(path, wanted, unused=("params/arcface",))
    context = ocp.Context()
    context.pytree.loading.partial_load = True
    with context:
        loaded = ocp.load_checkpointables(path.resolve(), {STATE: wanted})[STATE]
    weights = {"params": loaded["params"]["model"]}
    return {**weights, "batch_stats": loaded["batch_stats"]}, step


def replicated(shapes: Any) -> Any:
    """Gives every shape of a tree a place on the first device of this process."""
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device),
        shapes,
    )
