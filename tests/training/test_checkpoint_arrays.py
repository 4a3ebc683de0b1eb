import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

from tokret.errors import UserError
from tokret.training.checkpoint_arrays import (
    MAX_LISTED,
    SAVING,
    SavedArrays,
    open_arrays,
)
from tokret.training.checkpoints import list_steps

# Ends the process at its Nth call of os.fsync in the second save: one for each of the
# 10 files, after its digest is computed, one after all digests are written, and one
# after the checkpoint has got its name.
SAVE_TWICE = """
import itertools, os, pathlib, signal, sys
import jax.numpy as jnp
from tokret.training.checkpoint_arrays import start_saving

folder, last = pathlib.Path(sys.argv[1]), int(sys.argv[2])
start_saving(folder / "2", {"w": jnp.arange(9.0)}, {}).result()
calls, sync = itertools.count(1), os.fsync

def count(number):
    if next(calls) == last:
        os.kill(os.getpid(), signal.SIGKILL)
    sync(number)

os.fsync = count
start_saving(folder / "4", {"w": jnp.arange(9.0)}, {}).result()
print(next(calls) - 1)
"""


def test_names_and_shapes_are_compared_below_the_prefixes(saved_run, abstract):
    saved = open_arrays(saved_run / "checkpoints" / "6")
    state = abstract(width=5)
    wanted = {"params": {"model": {"w": state.params["model"]["w"], "v": state.step}}}
    with pytest.raises(UserError) as caught:
        saved.check_names(wanted, ("params/",))
    assert str(caught.value) == (
        f"{saved.path} does not hold this model: params/model/v is missing; "
        "params/model/w has shape (3,), not (5,)"
    )
    with pytest.raises(UserError, match="6 differs: opt_state/trace is unexpected$"):
        saved.check_names({}, ("opt_state/",), "differs")
    saved.check_names(wanted, ("batch_stats/none",))


@pytest.mark.parametrize(
    ("tree", "found"),
    [
        ({"params": {"arcface": {"weight": 0}}}, 0),
        ({"opt_state": [{"trace": {"arcface_local": {"weight": 0}}}]}, 0),
        ({"params": {"model": {"arcface": {"weight": 0}}}}, 1),
        ({"params": {"model": {"head": {"kernel": 0}}}}, 1),
    ],
)
def test_class_matrices_alone_may_be_padded(tmp_path, tree, found):
    def shapes(rows):
        return jax.tree.map(lambda _: np.zeros((rows, 2)), tree)

    saved = SavedArrays(tmp_path, shapes(8))
    if found:
        with pytest.raises(UserError, match=r"has shape \(8, 2\), not \(6, 2\)$"):
            saved.check_names(shapes(6), ("params/", "opt_state/"))
    else:
        saved.check_names(shapes(6), ("params/", "opt_state/"))


def test_an_error_lists_the_first_names_and_counts_the_others(saved_run):
    leaf = np.zeros(1)
    wanted = {"params": {str(number): leaf for number in range(MAX_LISTED + 3)}}
    saved = open_arrays(saved_run / "checkpoints" / "6")
    with pytest.raises(UserError, match="and 3 more$") as caught:
        saved.check_names(wanted, tuple(f"params/{n}" for n in range(10)))
    assert str(caught.value).count(" is missing") == MAX_LISTED


@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "steps"), [(1, [2]), (6, [2]), (11, [2]), (12, [2, 4]), (13, [2, 4])]
)
def test_a_process_killed_at_any_moment_leaves_whole_checkpoints(
    environment, opened, tmp_path, call, steps
):
    folder = tmp_path / "checkpoints"
    found = subprocess.run(
        [sys.executable, "-c", SAVE_TWICE, folder, str(call)],
        env=environment,
        capture_output=True,
        text=True,
    )
    if call == 13:
        assert (found.returncode, found.stdout) == (0, "12\n"), found.stderr
    else:
        assert found.returncode == -signal.SIGKILL, found.stderr
    assert list_steps(tmp_path) == steps
    assert any(folder.glob(f"{SAVING}*")) == (steps == [2])
    for step in steps:
        open_arrays(folder / str(step))
    with opened(tmp_path):  # as the next start of the run
        assert {path.name for path in folder.iterdir()} == set(map(str, steps))
