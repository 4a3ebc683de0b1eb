"""A checkpoint's weights alone: to evaluate, to start a run from, to convert."""

import contextlib
import dataclasses
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tokret.config.tree import Config, InferenceConfig
from tokret.errors import UserError
from tokret.io.remote.urls import url_of
from tokret.models.build import build_model
from tokret.models.retrieval_net import RetrievalNet
from tokret.training.checkpoint_arrays import (
    on_first_device,
    open_arrays,
    start_saving,
)
from tokret.training.checkpoint_metadata import (
    FILE,
    check_pixels,
    make_metadata,
    read_config,
    read_metadata,
)
from tokret.training.checkpoints import list_measured, list_steps
from tokret.training.retention import best_step


def find_checkpoint(workdir: Path, step: int | str | None = None) -> Path:
    """Returns the folder of a run's checkpoint.

    `step` is a number or its digits, "best" for the best by the run's `keep_best`, or
    None for the newest.

    Raises:
      UserError: if there is no such checkpoint.
    """
    steps = list_steps(workdir)
    if not steps:
        raise _none_in(workdir)
    folder = workdir / "checkpoints"
    newest = folder / str(steps[-1])
    if step is None:
        return newest
    if step == "best":
        return folder / str(_best(workdir, newest))
    if str(step) not in map(str, steps):
        best = ""
        with contextlib.suppress(UserError):
            best = f"; the best is {_best(workdir, newest)}"
        raise UserError(
            f"step: {workdir} has no checkpoint {step}; it has "
            f"{', '.join(map(str, steps))}{best}"
        )
    return folder / str(step)


def _none_in(workdir: Path) -> UserError:
    if not workdir.is_dir() and (url := url_of(workdir)):
        return UserError(f"workdir: there is no run at {url}; check its name")
    if not workdir.is_dir():
        return UserError(f"workdir: {workdir} is not a folder; name that of a run")
    for path in (workdir, *sorted(workdir.glob("[0-9]*"))):
        if is_checkpoint(path):
            read_metadata(path)  # refuses that of another program
            run, step = path.resolve().parents[1], path.resolve().name
            is_in_run = run / "checkpoints" / step == path.resolve()
            if path != workdir and is_in_run:
                return UserError(
                    f"workdir: {workdir} holds the checkpoints of a run; name the "
                    f"folder of the run, {run}"
                )
            where = f", {run}, with step={step}" if is_in_run else ""
            return UserError(
                f"workdir: {path} is one checkpoint; name the folder of its run{where}"
            )
    return UserError(f"workdir: {workdir} has no checkpoint; train first")


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder is one checkpoint, whole or damaged, of any program."""
    return os.path.lexists(folder / FILE)


def _best(workdir: Path, newest: Path) -> int:
    config = read_config(newest)
    measure = config.run.keep_best if isinstance(config, Config) else ""
    found = best_step(list_measured(workdir), measure)
    if found is None:
        raise UserError(
            f"step: no checkpoint of {workdir} was saved with a validation's "
            f"{measure or 'measures'}, so none is the best; run.keep_best keeps the "
            "best of a run that has validation photos"
        )
    return found


def restore_weights(
    checkpoint: Path, variables: Any, part: str = "", ema: bool = False
) -> Any:
    """Restores a model's variables, or one part's, without classifier and optimiser.

    Args:
      checkpoint: its folder.
      variables: shapes, dtypes and shardings, {"params": ..., "batch_stats": ...}.
      part: "" for the whole model; "trunk" where `variables` hold the trunk alone.
      ema: whether the exponential moving average of the parameters is taken for them.

    Raises:
      UserError: if the checkpoint is missing, damaged, or of another model.
    """
    saved = open_arrays(checkpoint)
    if ema and not saved.shapes.get("ema_params"):
        raise UserError(
            f"{checkpoint} holds no EMA of the weights; its run had ema_decay 0"
        )
    params, end = variables["params"], f"{part}/" if part else ""
    wanted = {"ema_params": params} if ema else {"params": {"model": params}}
    wanted["batch_stats"] = variables["batch_stats"]
    prefixes = ("ema_params/" if ema else "params/model/", "batch_stats/")
    saved.check_names(wanted, tuple(f"{prefix}{end}" for prefix in prefixes))
    loaded = saved.load(wanted, partial=True)
    params = loaded["ema_params"] if ema else loaded["params"]["model"]
    return {"params": params, "batch_stats": loaded["batch_stats"]}


def load_model(
    workdir: Path, step: int | str | None = None
) -> tuple[RetrievalNet, Any]:
    """Loads the model of a run or a conversion onto the first device of this process.

    Returns the model, and the variables that `model.apply` takes; for `step` see
    `find_checkpoint`.

    Raises:
      UserError: if there is no such checkpoint, or it is damaged.
    """
    checkpoint = find_checkpoint(workdir, step)
    config = read_config(checkpoint)
    check_pixels(checkpoint, config)
    model = build_model(**dataclasses.asdict(config.model))
    images = jnp.zeros((1, 64, 64, 3))
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
    return model, restore_weights(checkpoint, on_first_device(shapes))


def load_weights(checkpoint: Path) -> tuple[Any, Any]:
    """Loads a checkpoint as NumPy arrays: {"model": ..., "arcface": ...}, statistics.

    Raises:
      UserError: if it cannot be read.
    """
    saved = open_arrays(checkpoint)
    wanted = {name: saved.shapes[name] for name in ("params", "batch_stats")}
    loaded = saved.load(on_first_device(wanted), partial=True)
    loaded = jax.tree.map(np.asarray, loaded)
    return loaded["params"], loaded["batch_stats"]


def save_weights(
    workdir: Path, params: Any, batch_stats: Any, config: InferenceConfig
) -> None:
    """Saves weights from another source than tokret's training, as step 0.

    `params` are {"model": ..., "arcface": ...}; `config.model` builds the model.
    """
    folder = workdir / "checkpoints"
    folder.mkdir()
    state = {"params": params, "batch_stats": batch_stats}
    start_saving(folder / "0", state, make_metadata(config, 0)).result()
