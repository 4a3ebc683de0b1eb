import dataclasses
import shutil

import jax
import numpy as np
import pytest

from tokret.errors import UserError
from tokret.training.checkpoint_digests import UnreadableError
from tokret.training.checkpoint_metadata import FILE
from tokret.training.checkpoints import list_measured, list_steps
from tokret.training.weights import find_checkpoint


def test_the_newest_are_kept_and_come_back(saved_run, saved_state, opened, abstract):
    assert list_steps(saved_run) == [4, 6]
    with opened(saved_run) as checkpoints:
        assert checkpoints.latest_step() == 6
        back = checkpoints.restore(abstract(), 6)
    jax.tree.map(np.testing.assert_array_equal, back, saved_state(6))


def test_another_model_is_refused(saved_run, opened, abstract):
    with (
        opened(saved_run) as checkpoints,
        pytest.raises(UserError, match=r"model/w has shape \(3,\), not \(5,\)"),
    ):
        checkpoints.restore(abstract(width=5), 6)


def test_another_optimisers_state_is_refused_and_not_taken_for_damage(
    saved_run, opened, abstract
):
    wanted = abstract()
    wanted = dataclasses.replace(wanted, opt_state=({}, wanted.opt_state))
    with (
        opened(saved_run) as checkpoints,
        pytest.raises(UserError, match=f"weights of {saved_run}: opt_state/1/trace is"),
    ):
        checkpoints.restore(wanted, 6)
    assert list_steps(saved_run) == [4, 6]


def test_a_save_that_was_cut_off_is_not_taken(saved_run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(saved_run, copy)
    torn = copy / "checkpoints" / ".saving-8.orbax-checkpoint-tmp"
    shutil.copytree(copy / "checkpoints" / "6", torn)
    assert list_steps(copy) == [4, 6]


def test_the_best_stays_and_a_new_start_still_knows_it(opened, saved_state, tmp_path):
    def save(step, top1):
        checkpoints.save(saved_state(step), {"top1": top1} if top1 else None)

    with opened(tmp_path) as checkpoints:
        for step, top1 in ((1, 0.3), (2, 0.9), (3, 0.0), (4, 0.5)):
            save(step, top1)
    assert list_steps(tmp_path) == [2, 3, 4]
    assert list_measured(tmp_path) == {2: {"top1": 0.9}, 3: {}, 4: {"top1": 0.5}}
    with opened(tmp_path) as checkpoints:
        save(5, 0.6)
        save(6, 0.95)
        save(7, 0.1)
    assert list_steps(tmp_path) == [6, 7]
    assert find_checkpoint(tmp_path, "best").name == "6"
    assert find_checkpoint(tmp_path).name == "7"
    with opened(tmp_path, keep=1, keep_best="") as checkpoints:
        save(8, 1.0)
    assert list_steps(tmp_path) == [8]


def test_without_a_validation_there_is_no_best(saved_run):
    with pytest.raises(UserError, match="none is the best; run.keep_best"):
        find_checkpoint(saved_run, "best")


def test_what_a_killed_process_left_is_swept_away(saved_run, opened, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(saved_run, copy)
    folder = copy / "checkpoints"
    for name in (".saving-8.orbax-checkpoint-tmp", ".saving-8", ".removed-2"):
        shutil.copytree(folder / "6", folder / name)
    with opened(copy):
        assert sorted(path.name for path in folder.iterdir()) == ["4", "6"]


def test_nothing_is_removed_before_one_could_be_read(
    saved_run, opened, abstract, tmp_path
):
    copy = tmp_path / "run"
    shutil.copytree(saved_run, copy)
    (copy / "checkpoints" / "6" / FILE).write_text("{")
    with opened(copy, keep=1) as checkpoints:
        with pytest.raises(UnreadableError, match="checkpoints/6"):
            checkpoints.restore(abstract(), 6)
        checkpoints.move_damaged(6)
        assert int(checkpoints.restore(abstract(), 4).step) == 4


def test_the_config_of_a_run_comes_back_from_its_checkpoints(
    saved_run, opened, config, tmp_path
):
    copy = tmp_path / "run"
    shutil.copytree(saved_run, copy)
    (copy / "checkpoints" / "6" / FILE).write_text("{")
    with opened(copy) as checkpoints:
        assert checkpoints.recorded_config() == config
    (tmp_path / "new").mkdir()
    with opened(tmp_path / "new") as checkpoints:
        assert checkpoints.recorded_config() is None


@pytest.mark.parametrize("name", ["5", "99"])
def test_a_copy_under_another_steps_name_replaces_no_real_one(
    saved_run, opened, abstract, saved_state, name, tmp_path
):
    copy = tmp_path / "run"
    shutil.copytree(saved_run, copy)
    folder = copy / "checkpoints"
    shutil.copytree(folder / "4", folder / name)
    with opened(copy) as checkpoints:
        assert checkpoints.latest_step() == 6
        with pytest.raises(UnreadableError, match=f"step 4 under the name {name}"):
            checkpoints.restore(abstract(), int(name))
        checkpoints.prune()
        assert list_steps(copy) == sorted([4, 6, int(name)])
        checkpoints.save(saved_state(8))
    assert list_steps(copy) == sorted([6, 8, int(name)])


def test_a_failed_save_names_the_step_that_is_left(
    saved_run, opened, saved_state, tmp_path
):
    copy = tmp_path / "run"
    shutil.copytree(saved_run, copy)
    with pytest.raises(UserError, match="checkpoints/8 could not.* the beginning$"):
        with opened(copy) as checkpoints:
            shutil.rmtree(copy / "checkpoints")
            (copy / "checkpoints" / "8").mkdir(parents=True)
            (copy / "checkpoints" / "8" / "mine").touch()
            checkpoints.save(saved_state(8))
