import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokret.errors import UserError
from tokret.training.retention import MEASURES, best_step, steps_to_remove

NUMBERS = st.one_of(st.floats(0, 1), st.just(math.nan))
RUNS = st.dictionaries(
    st.integers(0, 50),
    st.one_of(st.just({}), st.fixed_dictionaries({name: NUMBERS for name in MEASURES})),
)


def test_best_means_lowest_loss_and_highest_precision():
    measured = {
        1: {"loss": 0.1, "top1": 0.2},
        2: {},
        3: {"loss": 0.9, "top1": 0.8},
        4: {"loss": math.nan, "top1": 0.8},
        5: {"loss": 0.4, "top1": math.nan},
    }
    assert best_step(measured, "loss") == 1
    assert best_step(measured, "top1") == 4  # of equals the newest
    assert best_step(measured, "top5") is None and best_step(measured, "") is None
    assert steps_to_remove(measured, keep=2, keep_best="loss") == [2, 3]
    assert steps_to_remove(measured, keep=2, keep_best="") == [1, 2, 3]


@given(RUNS, st.integers(1, 9), st.sampled_from(["", *MEASURES]))
def test_the_newest_and_the_best_always_stay(measured, keep, name):
    removed = steps_to_remove(measured, keep=keep, keep_best=name)
    left = {step: measured[step] for step in measured.keys() - set(removed)}
    assert set(sorted(measured)[-keep:]) <= left.keys()
    assert best_step(left, name) == best_step(measured, name)
    assert len(left) <= keep + 1
    # Killed in between, it resumes.
    assert steps_to_remove(left, keep=keep, keep_best=name) == []


@pytest.mark.parametrize(("field", "value"), [("keep", 0), ("keep_best", "mAP")])
def test_bad_fields(field, value):
    with pytest.raises(UserError, match=f"^{field} is"):
        steps_to_remove({}, **{"keep": 1, "keep_best": ""} | {field: value})
