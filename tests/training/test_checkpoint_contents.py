import jax
import numpy as np
import pytest

from tokret.errors import UserError
from tokret.training import checkpoint_contents as contents
from tokret.training.checkpoint_contents import (
    TOLD,
    check_names,
    differences,
    in_a_line,
)


def test_names_and_shapes_are_compared_where_that_is_asked(saved_run, abstract):
    path = saved_run / "checkpoints" / "6"
    state = abstract(width=5)
    wanted = {"params": {"model": {"w": state.params["model"]["w"], "v": state.step}}}
    assert differences(path, wanted, ("params/",)) == [
        "params/model/v is missing",
        "params/model/w has shape (3,), not (5,)",
    ]
    assert differences(path, {}, ("opt_state/",)) == ["opt_state/trace is not wanted"]
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

    monkeypatch.setattr(contents, "read_metadata", lambda _: shapes(8))
    assert len(differences(tmp_path, shapes(6), ("params/", "opt_state/"))) == found


def test_a_line_tells_the_first_and_how_many_more():
    names = [f"{number} is missing" for number in range(TOLD + 3)]
    assert in_a_line(names[:TOLD]) == "; ".join(names[:TOLD])
    assert in_a_line(names) == "; ".join([*names[:TOLD], "and 3 more"])
