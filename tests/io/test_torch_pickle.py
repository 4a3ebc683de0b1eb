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
    FaultError,
    Storage,
    Tensor,
    UnreadTensor,
    read_pickle,
)


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
        "torch hub",
        "torch FloatStorage.from_file",
        "torch._utils _rebuild_parameters",
        "torch.nn.parameter UninitializedParameter",
        "torch.storage _load_from_bytes",
        "torch.nn.modules.linear Linear",
        "numpy.core.multiarray fromfile",
    ],
)
def test_every_other_name_is_refused(name):
    module, attribute = name.split()
    with pytest.raises(FaultError, match=re.escape(f"the global {module}.{attribute}")):
        load(text(module) + text(attribute) + b"\x93")


def from_type(function, arguments=b")"):
    return (
        b"ctorch._tensor\n_rebuild_from_type_v2\n("
        + function
        + b"ctorch\nTensor\n"
        + arguments
        + b"}tR"
    )


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
        (b"ctorch\nfloat32\n)R", "truncated or malformed (TypeError"),
        (b"ctorch\nfloat32\n}b", "a state set on"),
        (b"ctorch\nTensor\n)R", "truncated or malformed (TypeError"),
        (b"ctorch\nTensor\n)\x81", "NEWOBJ"),
        (from_type(b"c_codecs\nencode\n"), "made by something unknown"),
        (from_type(b"ctorch._tensor\n_rebuild_from_type_v2\n"), "something unknown"),
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


def test_a_counter_of_a_scheduler_is_read():
    made, _ = load(b"ccollections\nCounter\n}(K\x0aK\x01K\x14K\x02u\x85R")
    assert made == {10: 1, 20: 2}


STORAGE = b"ctorch.storage\nUntypedStorage\n"
FACTS = persistent(STORAGE) + b"K\x00K\x03\x85K\x01\x85\x89N"


def rebuilt(name, facts):
    return b"ctorch._utils\n_rebuild_" + name + b"\n(" + facts + b"tR"


def test_a_tensor_of_bytes_has_a_dtype_of_its_own():
    tensor, storages = load(rebuilt(b"tensor_v3", FACTS + b"ctorch\nuint16\n"))
    assert tensor.dtype == np.dtype("<u2")
    assert storages["0"].nbytes == 6


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (rebuilt(b"tensor_v3", FACTS + b"ctorch\nint4\n"), "torch.int4 tensor"),
        (rebuilt(b"tensor_v2", FACTS + b"}U\x03negI01\ns"), "negative view"),
        (rebuilt(b"sparse_tensor", b"NN"), "sparse tensor"),
        (rebuilt(b"qtensor", FACTS), "quantised tensor"),
        (rebuilt(b"nested_tensor", b"NNNN"), "nested tensor"),
        (rebuilt(b"meta_tensor_no_storage", b"NNNN"), "tensor without values"),
    ],
)
def test_a_tensor_that_numpy_lacks_is_known_by_its_kind(body, kind):
    tensor, _ = load(body)
    assert isinstance(tensor, UnreadTensor) and kind in tensor.kind


def test_attributes_of_tensors_are_dropped():
    facts = b"(" + FACTS + b"t"
    plain, _ = load(rebuilt(b"tensor_v2", FACTS))
    assert isinstance(plain, Tensor)
    assert load(from_type(b"ctorch._utils\n_rebuild_tensor_v2\n", facts))[0] == plain
    inner = rebuilt(b"tensor_v2", FACTS)
    state = rebuilt(b"parameter_with_state", inner + b"\x88N}U\x01aK\x01s")
    assert load(state)[0] == plain


def test_what_stands_beside_weights_becomes_plain_data():
    body = (
        b"(ctorch\nfloat32\nctorch\nint4\nctorch\nper_tensor_affine\n"
        b"c__builtin__\nset\n](K\x01K\x02e\x85R"
        b"cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R"  # of a claimed length
        b"ctorch.serialization\n_get_layout\nU\x0dtorch.strided\x85Rt"
    )
    assert load(body)[0] == (
        np.dtype("<f4"),
        "torch.int4",
        "torch.per_tensor_affine",
        [1, 2],
        2**31 - 1,
        "torch.strided",
    )


def test_an_empty_set_is_read_and_a_full_one_refused_as_by_pytorch():
    assert load(b"\x8f")[0] == []
    with pytest.raises(FaultError, match="ADDITEMS"):
        load(b"\x8f(K\x01\x90")


def test_the_list_of_names_is_that_of_pytorch():
    pytest.importorskip("torch")
    unpickler = pytest.importorskip("torch._weights_only_unpickler")
    names = getattr(unpickler, "_get_allowed_globals", dict)()
    kinds = ("sparse.", "torch.cuda.", "QUInt", "TypedStorage", "_codecs")
    for name in (n for n in names if not any(kind in n for kind in kinds)):
        module, _, attribute = name.rpartition(".")
        load(text(module) + text(attribute) + b"\x93")
