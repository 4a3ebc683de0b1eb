import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tokret.errors import UserError
from tokret.training.checkpoint_arrays import on_first_device
from tokret.training.checkpoint_metadata import FILE, read_metadata
from tokret.training.checkpoints import list_steps
from tokret.training.weights import (
    find_checkpoint,
    load_weights,
    restore_weights,
    save_weights,
)


@pytest.fixture
def variables(abstract):
    def make(width=3):
        shapes = abstract(width)
        return {"params": shapes.params["model"], "batch_stats": shapes.batch_stats}

    return make


def test_weights_alone_come_back(saved_run, variables):
    newest = find_checkpoint(saved_run)
    weights = restore_weights(newest, variables())
    assert read_metadata(newest).step == 6
    np.testing.assert_array_equal(weights["params"]["w"], np.full(3, 6.0))
    weights = restore_weights(find_checkpoint(saved_run, 4), variables())
    np.testing.assert_array_equal(weights["params"]["w"], np.full(3, 4.0))


def test_a_moving_average_comes_back_in_their_place(
    saved_run, saved_state, opened, variables, tmp_path
):
    average = {"w": jnp.full(3, 0.5)}
    with opened(tmp_path, keep=1) as checkpoints:
        checkpoints.save(dataclasses.replace(saved_state(2), ema_params=average))
    checkpoint = find_checkpoint(tmp_path)
    weights = restore_weights(checkpoint, variables(), ema=True)
    np.testing.assert_array_equal(weights["params"]["w"], np.full(3, 0.5))
    np.testing.assert_array_equal(weights["batch_stats"]["bn"], [0, 1])
    weights = restore_weights(checkpoint, variables())
    np.testing.assert_array_equal(weights["params"]["w"], np.full(3, 2.0))
    with pytest.raises(UserError, match="no EMA"):
        restore_weights(find_checkpoint(saved_run), variables(), ema=True)


def test_another_model_is_refused_and_every_name_listed(saved_run, variables):
    with pytest.raises(UserError, match=r"model/w has shape \(3,\), not \(5,\)"):
        restore_weights(find_checkpoint(saved_run), variables(width=5))
    names = {**variables(), "params": {"v": variables()["params"]["w"]}}
    with pytest.raises(UserError, match=r"model/v is missing; .*model/w is unexpected"):
        restore_weights(find_checkpoint(saved_run), names)


def test_weights_from_elsewhere_are_saved_and_one_part_is_taken(config, tmp_path):
    trunk, head = {"w": np.arange(3.0)}, {"w": np.ones((2, 2))}
    params = {"model": {"trunk": trunk, "head": head}, "arcface": {"w": np.zeros(4)}}
    save_weights(tmp_path, params, {"trunk": {"mean": np.full(2, 7.0)}}, config)
    assert list_steps(tmp_path) == [0]
    checkpoint = find_checkpoint(tmp_path)
    back, statistics = load_weights(checkpoint)
    assert read_metadata(checkpoint).step == 0
    jax.tree.map(np.testing.assert_array_equal, back, params)
    np.testing.assert_array_equal(statistics["trunk"]["mean"], [7, 7])

    wanted = on_first_device(
        {
            "params": {"trunk": {"w": jax.ShapeDtypeStruct((3,), jnp.float32)}},
            "batch_stats": {"trunk": {"mean": jax.ShapeDtypeStruct((2,), jnp.float32)}},
        }
    )
    part = restore_weights(checkpoint, wanted, part="trunk")
    np.testing.assert_array_equal(part["params"]["trunk"]["w"], [0, 1, 2])
    with pytest.raises(UserError, match="params/model/head/w is unexpected"):
        restore_weights(checkpoint, wanted)
    del wanted["batch_stats"]["trunk"]["mean"]
    with pytest.raises(UserError, match="batch_stats/trunk/mean is unexpected"):
        restore_weights(checkpoint, wanted, part="trunk")


def test_a_checkpoint_without_its_files_is_named(saved_run, variables, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(saved_run, copy)
    (copy / "checkpoints" / "6" / "state" / "_METADATA").unlink()
    with pytest.raises(UserError, match="checkpoints/6: damaged .*_METADATA' is"):
        restore_weights(find_checkpoint(copy), variables())


def test_checkpoints_that_are_not_there(saved_run, tmp_path):
    with pytest.raises(UserError, match="step: .* no checkpoint 5; it has 4, 6"):
        find_checkpoint(saved_run, 5)
    with pytest.raises(UserError, match="no checkpoint; train first"):
        find_checkpoint(tmp_path)
    with pytest.raises(UserError, match="holds the checkpoints .* run, .*/run.*$"):
        find_checkpoint(saved_run / "checkpoints")
    with pytest.raises(UserError, match="/4 is one checkpoint; name the folder"):
        find_checkpoint(saved_run / "checkpoints" / "4")
    theirs = tmp_path / "0" / FILE
    theirs.parent.mkdir()
    theirs.write_text("{}")
    for folder in (tmp_path, theirs.parent):
        with pytest.raises(UserError, match="/0: written by another program"):
            find_checkpoint(folder)
    with pytest.raises(UserError, match="is not a folder"):
        find_checkpoint(tmp_path / "none")
    with pytest.raises(UserError, match=f"its run, {saved_run}, with step=6$"):
        find_checkpoint(saved_run / "checkpoints" / "6")
    alone = shutil.copytree(saved_run / "checkpoints" / "6", tmp_path / "alone")
    with pytest.raises(UserError, match="alone is one checkpoint; name .* its run$"):
        find_checkpoint(alone)
