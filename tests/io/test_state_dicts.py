import re

import numpy as np
import pytest

from tokret.io.state_dicts import WRAPPERS, StateError, choose_state
from tokret.io.torch_pickle import FaultError, Storage, Tensor, UnreadTensor

TENSOR = Tensor(Storage("0", np.dtype("<f4"), 6, 0, 6), 0, (2, 3), (3, 1))
STATE = {"a": TENSOR}


def test_a_state_dict_stands_at_the_top():
    chosen = choose_state({"a": TENSOR, "b": TENSOR})
    assert chosen == ({"a": TENSOR, "b": TENSOR}, "", (), ())


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_state_dict_stands_beside_other_things(wrapper):
    optim = {"state": {0: {"exp_avg": TENSOR}}, "param_groups": []}
    top = {"epoch": 3, wrapper: STATE, "optim": optim, "best": TENSOR}
    chosen = choose_state(top)
    assert (chosen.tensors, chosen.name) == (STATE, wrapper)
    assert chosen.others == ("epoch", "optim", "best")
    assert chosen.alternatives == ("",)


def test_a_wrapper_that_holds_something_else_is_one_of_the_others():
    chosen = choose_state({"net": STATE, "model": "resnet50"})
    assert (chosen.tensors, chosen.others) == (STATE, ("model",))


@pytest.mark.parametrize(
    ("names", "default"),
    [
        (("state_dict_ema", "state_dict"), "state_dict"),
        (("ema_state_dict", "model"), "model"),
        (("model_ema", "optimizer"), "model_ema"),
        (("net", "model"), "model"),
        (("teacher",), "teacher"),
    ],
)
def test_of_several_the_default_or_any_by_its_name(names, default):
    top = {name: {name: TENSOR} for name in names}
    chosen = choose_state(top)
    assert chosen.name == default and list(chosen.tensors) == [default]
    assert chosen.alternatives == tuple(n for n in names if n != default)
    for name in names:
        assert list(choose_state(top, name).tensors) == [name]


def test_dicts_in_dicts_are_chosen_by_their_places():
    inner = {"module": {"b": TENSOR}}
    top = {"model": {"state_dict": {"a": TENSOR}, "version": 2}, "ema": inner}
    chosen = choose_state(top, "ema.module")
    assert (list(chosen.tensors), chosen.name) == (["b"], "ema.module")
    assert chosen.alternatives == ("model.state_dict",)
    assert chosen.others == ()


def test_a_dict_and_a_prefix_in_it_choose_the_dict():
    top = {"student": {"b.a": TENSOR}, "teacher": {"b.a": TENSOR}}
    for name in ("teacher", "teacher.b", "teacher.b.a"):
        assert choose_state(top, name).name == "teacher"
    assert choose_state({"model": STATE, **top}, "teach").name == "model"


def test_without_a_default_one_must_be_named():
    top = {"student": {"a": TENSOR}, "teacher": {"a": TENSOR}}
    with pytest.raises(StateError, match=r"2 dicts of tensors, student, teacher; name"):
        choose_state(top)


def test_the_count_of_an_averaged_model_is_skipped():
    averaged = {"n_averaged": TENSOR, "module.a": TENSOR}
    chosen = choose_state(averaged)
    assert (chosen.tensors, chosen.others) == ({"module.a": TENSOR}, ("n_averaged",))
    assert "n_averaged" in choose_state({**averaged, "b": TENSOR}).tensors


def test_what_is_no_tensor_is_skipped_by_name():
    chosen = choose_state({"model": {"a": TENSOR, "lr": 0.1, "b": None}, "epoch": 1})
    assert (chosen.tensors, chosen.others) == (STATE, ("epoch", "lr", "b"))


def test_a_dict_in_itself_and_in_many_places_ends():
    top = {"model": STATE}
    for _ in range(50):
        top = {"a": top, "b": top, "model": STATE}
    top["self"] = top
    assert choose_state(top).name == "model"


@pytest.mark.parametrize(
    ("top", "words"),
    [
        ([TENSOR], "holds list; save"),
        ({}, "no tensors, only an empty dict"),
        ({"state_dict": {}, "epoch": 3}, r"no tensors.* epoch (int)"),
        ({"a": TENSOR, "q": UnreadTensor("sparse tensor")}, "q (sparse tensor); save"),
        (dict.fromkeys("123456789"), r"5 (NoneType) and 4 more"),
    ],
)
def test_what_is_no_state_dict_is_named(top, words):
    with pytest.raises(FaultError, match=".*".join(map(re.escape, words.split(".*")))):
        choose_state(top)
