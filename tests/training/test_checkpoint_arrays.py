import jax
import numpy as np
import pytest

from tokret.errors import UserError
from tokret.training import checkpoint_arrays as contents
from tokret.training.checkpoint_arrays import (
    MAX_LISTED,
    check_names,
    differences,
    shortened,
)


def test_names_and_shapes_are_compared_below_the_prefixes(saved_run, abstract):
    path = saved_run / "checkpoints" / "6"
    state = abstract(width=5)
    wanted = {"params": {"model": {"w": state.params["model"]["w"], "v": state.step}}}
    assert differences(path, wanted, ("params/",)) == [
        "params/model/v is missing",
        "params/model/w has shape (3,), not (5,)",
    ]
    assert differences(path, {}, ("opt_state/",)) == ["opt_state/trace is unexpected"]
    assert not differences(path, wanted, ("batch_stats/none",))
    with pytest.raises(UserError, match=r"does not hold this model: .*v is missing"):
        check_names(path, wanted, ("params/",))


@pytest.mark.parametrize(
    ("tree", "found"),
    [
        ({"params": {"arcface": {"weight": 0}}}, 0),
        ({"opt_state": [{"trace": {"arcface_local": {"weight": 0}}}]}, 0),
        ({"params": {"model": {"arcface": {"weight": 0}}}}, 1),
        ({"params": {"model": {"head": {"kernel": 0}}}}, 1),
    ],
)
def test_class_matrices_alone_may_be_padded(monkeypatch, tmp_path, tree, found):
    def shapes(rows):
        return jax.tree.map(lambda _: np.zeros((rows, 2)), tree)

    monkeypatch.setattr(contents, "read_shapes", lambda _: shapes(8))
    assert len(differences(tmp_path, shapes(6), ("params/", "opt_state/"))) == found


def test_a_line_lists_the_first_and_counts_the_others():
    names = [f"{number} is missing" for number in range(MAX_LISTED + 3)]
    assert shortened(names[:MAX_LISTED]) == "; ".join(names[:MAX_LISTED])
    assert shortened(names) == "; ".join([*names[:MAX_LISTED], "and 3 more"])
