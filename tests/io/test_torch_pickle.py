import copyreg
import io
import pickle
import re
import struct
from pathlib import Path

import numpy as np
import pytest

from tokret.io.torch_pickle import (
    STORAGE_DTYPES,
    WRAPPERS,
    FaultError,
    Storage,
    Tensor,
    read_pickle,
    state_dict_of,
)

TENSOR = Tensor(Storage("0", np.dtype("<f4"), 6, 0, 6), 0, (2, 3), (3, 1))


class Touches:
    """Leaves a mark in any way in which a pickle can make an instance."""

    def __new__(cls, *path, **named):
        for mark in (*path, *named.values()):
            Path(mark).touch()
        return super().__new__(cls)

    def __setstate__(self, mark):
        Path(mark).touch()


HERE = f"{__name__}\nTouches\n".encode()


def text(value):
    data = str(value).encode()
    return b"X" + struct.pack("<I", len(data)) + data


def load(body):
    return read_pickle(io.BytesIO(b"\x80\x02" + body + b"."))


ATTACKS = {
    "GLOBAL REDUCE": lambda mark: b"cos\nsystem\n" + text(f"touch {mark}") + b"\x85R",
    "STACK_GLOBAL REDUCE": lambda mark: (
        text("os") + text("system") + b"\x93" + text(f"touch {mark}") + b"\x85R"
    ),
    "INST": lambda mark: b"(" + text(f"touch {mark}") + b"ios\nsystem\n",
    "OBJ": lambda mark: b"(cos\nsystem\n" + text(f"touch {mark}") + b"o",
    "NEWOBJ": lambda mark: b"c" + HERE + text(mark) + b"\x85\x81",
    "NEWOBJ_EX": lambda mark: (
        b"c" + HERE + b")}" + text("path") + text(mark) + b"s\x92"
    ),
    "BUILD": lambda mark: b"c" + HERE + b")\x81" + text(mark) + b"b",
    "in a state dict": lambda mark: (
        b"ccollections\nOrderedDict\n)R" + text("weight") + b"cos\nsystem\n"
        + text(f"touch {mark}") + b"\x85Rs"
    ),
    "thrown away": lambda mark: b"cos\nsystem\n" + text(f"touch {mark}") + b"\x85R0N",
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_attack_runs(attack, tmp_path):
    mark = tmp_path / "mark"
    body = ATTACKS[attack](mark)
    with pytest.raises(FaultError, match=r"the global (os\.system|.*Touches)"):
        load(body)
    assert not mark.exists()
    pickle.loads(b"\x80\x02" + body + b".")
    assert mark.exists()  # The attack is a real one.


def test_an_extension_that_pickle_remembers_is_refused(tmp_path):
    copyreg.add_extension(__name__, "Touches", 241)
    try:
        body = b"\x82\xf1" + text(tmp_path / "mark") + b"\x85R"
        pickle.loads(b"\x80\x02" + body + b".")
        (tmp_path / "mark").unlink()
        with pytest.raises(FaultError, match="EXT1"):
            load(body)
        assert not (tmp_path / "mark").exists()
    finally:
        copyreg.remove_extension(__name__, "Touches", 241)
        copyreg.clear_extension_cache()


@pytest.mark.parametrize(
    "name",
    [
        "argparse Namespace",
        "builtins getattr",
        "collections OrderedDict.fromkeys",
        "collections defaultdict",
        "torch load",
        "torch float32",
        "torch FloatStorage.from_file",
        "torch._utils _rebuild_sparse_tensor",
        "torch.storage _load_from_bytes",
        "torch.nn.modules.linear Linear",
        "numpy.core.multiarray fromfile",
    ],
)
def test_every_other_name_is_refused(name):
    module, attribute = name.split()
    with pytest.raises(FaultError, match=re.escape(f"the global {module}.{attribute}")):
        load(text(module) + text(attribute) + b"\x93")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"ctorch._utils\n_rebuild_tensor\n}" + text("a") + b"Nsb", "a state set on"),
        (b"ctorch\nFloatStorage\n}" + text("dtype") + b"Nsb", "a state set on"),
        (b"ccollections\nOrderedDict\n}" + text("get") + b"Nsb", "a state set on"),
        (b"ctorch\nFloatStorage\n)R", "truncated or malformed (TypeError"),
        (b"ccollections\nOrderedDict\n" + text("ab") + b"\x85R", "but pairs"),
        (text("module") + b"Q", "no storage"),
        (b"(" + text("module") + b"NNNNtQ", "no storage"),
        (b"P0\n", "PERSID"),
    ],
)
def test_what_is_admitted_cannot_be_bent(body, words):
    with pytest.raises(FaultError, match=re.escape(words)):
        load(body)


def test_the_state_of_an_ordered_dict_is_forgotten():
    state = b"}" + text("items") + text("mine") + b"s"
    made, _ = load(
        b"ccollections\nOrderedDict\n)R" + text("a") + b"K\x01s" + state + b"b"
    )
    assert dict(made.items()) == {"a": 1}


def test_python_2s_ordered_dict_of_pairs_is_read():
    # OrderedDict([["a", 1], ["b", 2]]), its strings of bytes.
    pairs = b"](](U\x01aK\x01e](U\x01bK\x02ee"
    made, _ = load(b"ccollections\nOrderedDict\n" + pairs + b"\x85R")
    assert list(made.items()) == [("a", 1), ("b", 2)]


def persistent(kind=b"ctorch\nFloatStorage\n", key="0", total=b"K\x06", part=b""):
    return (
        b"("
        + text("storage")
        + kind
        + text(key)
        + text("cuda:0")
        + total
        + part
        + b"tQ"
    )


@pytest.mark.parametrize("name", STORAGE_DTYPES)
def test_storages_are_collected(name):
    storage, storages = load(persistent(b"ctorch\n" + name.encode() + b"\n"))
    assert storages == {"0": storage}
    assert storage == Storage("0", STORAGE_DTYPES[name], 6, 0, 6)


def test_a_part_of_a_storage_keeps_its_place():
    part = b"(" + text("17") + b"K\x02K\x03t"
    storage, storages = load(persistent(part=part))
    assert (storage.first, storage.length) == (2, 3)
    assert storages["0"].length == 6


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (persistent(total=b"J\xff\xff\xff\xff"), "invalid size"),
        (persistent(total=b"\x8a\x08" + b"\xff" * 7 + b"\x7f"), "invalid size"),
        (persistent(total=b"\x88"), "invalid size"),
        (persistent() + persistent(total=b"K\x07"), "in two ways"),
        (persistent() + persistent(b"ctorch\nIntStorage\n"), "in two ways"),
        (persistent(part=b"(NK\x04K\x03t"), "a part outside storage 0"),
        (persistent(part=b"(NJ\xff\xff\xff\xffK\x03t"), "a part outside storage 0"),
    ],
)
def test_storages_that_cannot_be_are_refused(body, words):
    with pytest.raises(FaultError, match=words):
        load(body)


def test_numpys_numbers_may_be_beside_the_weights():
    data = pickle.dumps({"best": np.float64(0.5), "losses": np.arange(3)}, 2)
    assert read_pickle(io.BytesIO(data))[0] == {"best": 0.5, "losses": [0, 1, 2]}


def test_a_state_dict_stands_at_the_top():
    assert state_dict_of({"a": TENSOR, "b": TENSOR}) == ({"a": TENSOR, "b": TENSOR}, ())


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_state_dict_stands_beside_other_things(wrapper):
    optim = {"state": {0: {"exp_avg": TENSOR}}, "param_groups": []}
    top = {"epoch": 3, wrapper: {"a": TENSOR}, "optim": optim, "best": TENSOR}
    state, others = state_dict_of(top)
    assert state == {"a": TENSOR}
    assert others == ("epoch", "optim", "best")


def test_a_wrapper_that_holds_something_else_is_one_of_the_others():
    state, others = state_dict_of({"net": {"a": TENSOR}, "model": "resnet50"})
    assert (state, others) == ({"a": TENSOR}, ("model",))


@pytest.mark.parametrize(
    ("top", "words"),
    [
        ([TENSOR], "holds list; save"),
        ({}, "no tensors, only an empty dict"),
        ({"state_dict": {}, "epoch": 3}, r"no tensors.* epoch \(int\)"),
        ({"ema": {"a": TENSOR}}, r"only ema \(dict\); .* state_dict, model"),
        ({"net": {"a": TENSOR}, "model": {"a": TENSOR}}, "2 .* model and net"),
        ({"a": TENSOR, "b": 3, "c": None}, r": b \(int\), c \(NoneType\); save"),
        ({"model": {"a": TENSOR, "lr": 0.1}}, r"other than tensors: lr \(float\)"),
        ({"a": TENSOR, **dict.fromkeys("123456789")}, r"8 \(NoneType\) and 1 more"),
    ],
)
def test_what_is_no_state_dict_is_named(top, words):
    with pytest.raises(FaultError, match=words):
        state_dict_of(top)
