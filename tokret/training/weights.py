"""A checkpoint's weights alone: to evaluate, to start a run from, to convert."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from tokret.errors import UserError
from tokret.training.checkpoints import STATE, check_names, read_metadata


def list_steps(workdir: Path) -> list[int]:
    """Lists the steps of a run's complete checkpoints, oldest first."""
    folder = workdir / "checkpoints"
    if not folder.is_dir():
        return []
    with ocp.training.Checkpointer(folder.resolve()) as checkpointer:
        return sorted(int(found.step) for found in checkpointer.checkpoints)


def find_step(workdir: Path, step: int | None) -> int:
    """Returns a checkpoint's step; None asks for the newest.

    Raises:
      UserError: if there is no such checkpoint.
    """
    steps = list_steps(workdir)
    if not steps:
        raise UserError(
            f"{workdir} holds no checkpoint; train first: "
            f"python train.py --config=... --workdir={workdir}"
        )
    if step is None:
        return steps[-1]
    if step not in steps:
        raise UserError(
            f"--step={step}: {workdir} holds no such checkpoint; it has "
            f"{', '.join(map(str, steps))}"
        )
    return step


def restore_weights(
    workdir: Path,
    variables: Any,
    step: int | None = None,
    part: str = "",
    averaged: bool = False,
) -> tuple[Any, int]:
    """Restores a model's variables, or one part's, without classifier and optimiser.

    Args:
      workdir: the run's folder.
      variables: shapes, dtypes and shardings, {"params": ..., "batch_stats": ...}.
      step: the checkpoint's step; None takes the newest.
      part: "" for the whole model; "trunk" where `variables` hold the trunk alone.
      averaged: whether the moving average of the parameters is taken for them.

    Returns:
      The variables and the step they come from.

    Raises:
      UserError: if there is no such checkpoint, or it holds another model.
    """
    step = find_step(workdir, step)
    path = workdir / "checkpoints" / str(step)
    wanted = {"batch_stats": variables["batch_stats"]}
    params, end = variables["params"], f"{part}/" if part else ""
    if averaged:
        if not read_metadata(path).get("average"):
            raise UserError(
                f"{path} holds no moving average of weights; its run had "
                "config.updates.average=0"
            )
        wanted["average"] = params
    else:
        wanted["params"] = {"model": params}
    prefixes = ("average/" if averaged else "params/model/", "batch_stats/")
    check_names(path, wanted, tuple(f"{prefix}{end}" for prefix in prefixes))
    loaded = _load(path, wanted)
    params = loaded["average"] if averaged else loaded["params"]["model"]
    return {"params": params, "batch_stats": loaded["batch_stats"]}, step


def load_weights(workdir: Path, step: int | None = None) -> tuple[Any, Any, int]:
    """Loads whatever weights a checkpoint holds, as NumPy arrays.

    Returns:
      Parameters, {"model": ..., "arcface": ...}; running statistics; the step.

    Raises:
      UserError: if there is no such checkpoint, or it cannot be read.
    """
    step = find_step(workdir, step)
    path = workdir / "checkpoints" / str(step)
    saved = {name: read_metadata(path)[name] for name in ("params", "batch_stats")}
    loaded = jax.tree.map(np.asarray, _load(path, replicated(saved)))
    return loaded["params"], loaded["batch_stats"], step


def save_weights(workdir: Path, params: Any, batch_stats: Any) -> None:
    """Saves weights that no training of tokret made, as the checkpoint of step 0."""
    weights = {"params": params, "batch_stats": batch_stats}
    with ocp.training.Checkpointer((workdir / "checkpoints").resolve()) as checkpointer:
        checkpointer.save_checkpointables(0, {STATE: weights})


def _load(path: Path, wanted: Any) -> Any:
    context = ocp.Context()
    context.pytree.loading.partial_load = True
    try:
        with context:
            return ocp.load_checkpointables(path.resolve(), {STATE: wanted})[STATE]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{path} is damaged ({str(error)[:200]}); use another checkpoint"
        ) from error


def replicated(shapes: Any) -> Any:
    """Gives every shape of a tree a place on the first device of this process."""
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device),
        shapes,
    )
