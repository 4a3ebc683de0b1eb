import shutil

import jax
import numpy as np
import pytest

from tokret.errors import UserError
from tokret.training.checkpoints import Checkpoints
from tokret.training.weights import list_steps


def test_the_newest_are_kept_and_come_back(saved_run, saved_state, abstract):
    assert list_steps(saved_run) == [4, 6]
    with Checkpoints(saved_run, keep=2) as checkpoints:
        assert checkpoints.latest_step() == 6
        back = checkpoints.restore(abstract(), 6)
    jax.tree.map(np.testing.assert_array_equal, back, saved_state(6))


def test_another_model_is_refused(saved_run, abstract):
    with (
        Checkpoints(saved_run, keep=2) as checkpoints,
        pytest.raises(UserError, match=r"model/w has shape \(3,\), not \(5,\)"),
    ):
        checkpoints.restore(abstract(width=5), 6)


def test_a_save_that_was_cut_off_is_not_taken(saved_run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(saved_run, copy)
    torn = copy / "checkpoints" / "8.orbax-checkpoint-tmp-123"
    shutil.copytree(copy / "checkpoints" / "6", torn)
    assert list_steps(copy) == [4, 6]
