"""A run of three saves with one weight, one statistic and one momentum."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from tokret.config.parsing import parse
from tokret.configs import demo
from tokret.training.checkpoint_arrays import on_first_device
from tokret.training.checkpoints import Checkpoints
from tokret.training.state import TrainState


@pytest.fixture(scope="session")
def saved_state():
    """Returns a function that makes the state of a step."""

    def state(step, width=3):
        return TrainState(
            step=jnp.array(step),
            params={"model": {"w": jnp.full((width,), float(step))}, "arcface": {}},
            batch_stats={"bn": jnp.arange(2.0)},
            opt_state={"trace": jnp.full((width,), -1.0)},
            ema_params={},
            nonfinite_steps=jnp.array(0),
            consecutive_nonfinite_steps=jnp.array(0),
            last_nonfinite_step=jnp.array(0),
        )

    return state


@pytest.fixture(scope="session")
def abstract(saved_state):
    """Returns a function that makes the state's shapes."""
    return lambda width=3: on_first_device(
        jax.eval_shape(lambda: saved_state(0, width))
    )


@pytest.fixture(scope="session")
def config():
    """A config that checkpoints can repeat: a model is built from it."""
    config = demo.get_config("gem")
    config.model.dim = 8
    config.run.keep, config.run.keep_best = 2, "top1"
    return parse(config.to_dict())


@pytest.fixture(scope="session")
def opened(config):
    """Returns a function that opens the checkpoints of a folder."""

    def checkpoints(workdir, keep=2, keep_best="top1"):
        run = dataclasses.replace(config.run, keep=keep, keep_best=keep_best)
        return Checkpoints(workdir, dataclasses.replace(config, run=run))

    return checkpoints


@pytest.fixture(scope="session")
def saved_run(saved_state, opened, tmp_path_factory):
    """The folder of a run that saved steps 2, 4 and 6 and kept two of them."""
    workdir = tmp_path_factory.mktemp("run")
    with opened(workdir) as checkpoints:
        assert checkpoints.latest_step() is None
        for step in (2, 4, 6):
            checkpoints.save(saved_state(step))
        checkpoints.save(saved_state(6))  # the end of a run may fall on a saving step
    return workdir
