import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tokret.errors import UserError
from tokret.training.checkpoints import (
    Checkpoints,
    list_steps,
    replicated,
    restore_weights,
)
from tokret.training.state import TrainState


def state(step, width=3):
    return TrainState(
        step=jnp.array(step),
        params={"model": {"w": jnp.full((width,), float(step))}, "arcface": {}},
        batch_stats={"bn": jnp.arange(2.0)},
        opt_state={"trace": jnp.full((width,), -1.0)},
    )


def abstract(width=3):
    return replicated(jax.eval_shape(lambda: state(0, width)))


def variables(width=3):
    shapes = abstract(width)
    return {"params": shapes.params["model"], "batch_stats": shapes.batch_stats}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    with Checkpoints(workdir, keep=2) as checkpoints:
        assert checkpoints.latest_step() is None
        for step in (2, 4, 6):
            checkpoints.save(state(step))
        checkpoints.save(state(6))  # the end of a run may fall on a saving step
    return workdir


def test_the_newest_are_kept_and_come_back(workdir):
    assert list_steps(workdir) == [4, 6]
    with Checkpoints(workdir, keep=2) as checkpoints:
        assert checkpoints.latest_step() == 6
        back = checkpoints.restore(abstract(), 6)
    jax.tree.map(np.testing.assert_array_equal, back, state(6))


def test_weights_alone_come_back(workdir):
    weights, step = restore_weights(workdir, variables())
    assert step == 6
    np.testing.assert_array_equal(weights["params"]["w"], np.full(3, 6.0))
    weights, step = restore_weights(workdir, variables(), step=4)
    assert step == 4
    np.testing.assert_array_equal(weights["params"]["w"], np.full(3, 4.0))


def test_another_model_is_refused_and_every_name_listed(workdir):
    with pytest.raises(UserError, match=r"model/w has shape \(3,\), not \(5,\)"):
        restore_weights(workdir, variables(width=5))
    names = {**variables(), "params": {"v": variables()["params"]["w"]}}
    with pytest.raises(UserError, match=r"model/v is missing; .*model/w is not"):
        restore_weights(workdir, names)
    with (
        Checkpoints(workdir, keep=2) as checkpoints,
        pytest.raises(UserError, match=r"model/w has shape"),
    ):
        checkpoints.restore(abstract(width=5), 6)


def test_a_checkpoint_without_its_files_is_named(workdir, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(workdir, copy)
    (copy / "checkpoints" / "6" / "state" / "_METADATA").unlink()
    with pytest.raises(UserError, match="checkpoints/6 cannot be read"):
        restore_weights(copy, variables())


def test_checkpoints_that_are_not_there(workdir, tmp_path):
    with pytest.raises(UserError, match="--step=5.*4, 6"):
        restore_weights(workdir, variables(), step=5)
    with pytest.raises(UserError, match="no checkpoint; train first"):
        restore_weights(tmp_path, variables())


def test_a_save_that_was_cut_off_is_not_taken(workdir, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(workdir, copy)
    torn = copy / "checkpoints" / "8.orbax-checkpoint-tmp-123"
    shutil.copytree(copy / "checkpoints" / "6", torn)
    assert list_steps(copy) == [4, 6]
