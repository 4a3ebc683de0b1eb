import copyreg
import os
import pickle
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokret.io import restricted_pickle

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner)
    ),
    max_leaves=20,
)


class Runs:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@settings(derandomize=True, deadline=None, max_examples=60)
@given(PLAIN, st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_plain_data_comes_back(value, protocol):
    assert restricted_pickle.load(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("dtype", ["int32", ">i8", "float64", "bool"])
def test_numpy_numbers_come_back_as_lists(protocol, dtype):
    array = np.array([0, 1, 1], dtype)
    data = pickle.dumps({"easy": array, "one": array[1]}, protocol)
    loaded = restricted_pickle.load(data)
    assert loaded == {"easy": [0, 1, 1], "one": 1}
    assert type(loaded["one"]) is type(array[1].item())


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("dtype", [int, str, bytes, object])
def test_empty_arrays_come_back(protocol, dtype):
    data = pickle.dumps({"hard": np.array([], dtype)}, protocol)
    assert restricted_pickle.load(data) == {"hard": []}


def test_a_pickle_of_python_2_is_read():
    # pickle.dumps({'imlist': ['caf\xe9']}, 2) of Python 2: byte strings, not text.
    data = b"\x80\x02}q\x00U\x06imlistq\x01]q\x02U\x04caf\xe9q\x03as."
    assert restricted_pickle.load(data) == {"imlist": ["café"]}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_is_run(tmp_path, protocol):
    mark = tmp_path / "mark"
    for attack in (
        Runs(os.system, f"touch {mark}"),
        Runs(eval, f"__import__('pathlib').Path({str(mark)!r}).touch()"),
        Runs(os.mkdir, str(mark)),
    ):
        data = pickle.dumps({"gnd": [attack]}, protocol)
        with pytest.raises(restricted_pickle.RefusedError, match="the global"):
            restricted_pickle.load(data)
        assert not mark.exists()
        pickle.loads(data)  # The attack is a real one.
        assert mark.exists()
        mark.rmdir() if mark.is_dir() else mark.unlink()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "array",
    [
        np.array(["a", "", "Zürich 中"]),
        np.array(["a", "bc"], ">U3"),
        np.array(["a", "bc", "caf\xe9"], object),
        np.array([np.str_("a"), "bc"], object),
        np.array([[0, 2], []], object),
    ],
    ids=["U", "big-endian U", "objects", "np.str_ in objects", "lists in objects"],
)
def test_numpy_strings_come_back_as_lists(protocol, array):
    data = pickle.dumps({"imlist": array, "one": array[1]}, protocol)
    loaded = restricted_pickle.load(data)
    assert loaded == {"imlist": array.tolist(), "one": array[1]}
    assert type(loaded["one"]) in (str, list)


def test_numpys_bytes_are_text_as_python_2s_are():
    array = np.array(["caf\xe9".encode("latin1"), b"b"])
    data = pickle.dumps([array, array[0]], 2)
    assert restricted_pickle.load(data) == [["caf\xe9", "b"], "caf\xe9"]


def test_strings_of_numpy_are_work_by_their_bytes(monkeypatch):
    names = np.array([f"photo_{i:024d}.jpg" for i in range(1000)])
    data = pickle.dumps(names, 4)
    monkeypatch.setattr(restricted_pickle, "MAX_STEPS", 3000)
    assert len(restricted_pickle.load(data)) == 1000
    monkeypatch.setattr(restricted_pickle, "MAX_STEPS", 1000)
    with pytest.raises(restricted_pickle.RefusedError, match="1000 steps"):
        restricted_pickle.load(data)


def test_an_object_array_runs_nothing(tmp_path):
    mark = tmp_path / "mark"
    array = np.array([Runs(os.mkdir, str(mark)), None], object)
    with pytest.raises(restricted_pickle.RefusedError, match="the global"):
        restricted_pickle.load(pickle.dumps(array))
    assert not mark.exists()


@pytest.mark.parametrize(
    "array",
    [
        np.array([["a", "b"]]),
        np.array([[1, 2]]),
        np.array([[{}, 1]], object),
        np.zeros(2, [("a", "i4")]),
        np.array(["2024-01-01"], "datetime64[D]"),
    ],
)
def test_only_flat_arrays_of_numbers_strings_and_objects_are_admitted(array):
    with pytest.raises(restricted_pickle.RefusedError):
        restricted_pickle.load(pickle.dumps(array))


def test_a_shape_that_claims_more_than_the_data_holds_is_refused():
    data = pickle.dumps(np.arange(3, dtype="i1"), 2)
    assert data.count(b"K\x03\x85") == 1
    with pytest.raises(ValueError, match="does not fit"):
        restricted_pickle.load(data.replace(b"K\x03\x85", b"J\xff\xff\xff\x7f\x85"))


def test_a_state_cannot_be_set_on_the_stand_ins():
    name = b"cnumpy.core.multiarray\n_reconstruct\n"
    with pytest.raises(restricted_pickle.RefusedError, match="a state"):
        restricted_pickle.load(b"\x80\x02" + name + b"N}U\x08__name__U\x01xs\x86b.")
    with pytest.raises(restricted_pickle.RefusedError, match="codec"):
        restricted_pickle.load(
            b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aU\x03hex\x86R."
        )


def test_a_huge_memo_index_costs_no_memory():
    # LONG_BINPUT 0xfffffff0: the reader in C would clear 64 GiB for it.
    assert restricted_pickle.load(b"\x80\x02]r\xf0\xff\xff\xff.") == []


def pickled(*parts):
    return b"\x80\x04" + b"".join(parts) + b"."


DOUBLED = b")" + b"2\x86" * 100  # A pair of a pair of ...: 2 ** 100 leaves.


@pytest.mark.parametrize(
    "key",
    [DOUBLED, b")" + b"\x85" * 1000, b"\x8a\x09" + b"\0" * 8 + b"\x01", b"N"],
    ids=["doubled", "deep", "beyond 64 bits", "None"],
)
def test_keys_that_are_slow_to_hash_are_refused(key):
    for item in (b"}" + key + b"Ns", b"}(" + key + b"Nu", b"(" + key + b"Nd"):
        with pytest.raises(restricted_pickle.RefusedError, match="a dict's key"):
            restricted_pickle.load(pickled(item))


def test_nesting_has_no_bottom_to_fall_through():
    depth = 50_000
    value = restricted_pickle.load(pickled(b"]" * depth, b"a" * (depth - 1)))
    for _ in range(depth - 1):
        (value,) = value
    assert value == []


@pytest.mark.parametrize(
    "claim",
    [b"\x96", b"\x8e", b"\x8d"],
    ids=["BYTEARRAY8", "BINBYTES8", "BINUNICODE8"],
)
def test_a_claimed_length_costs_no_memory(claim):
    tracemalloc.start()
    try:
        with pytest.raises((EOFError, pickle.UnpicklingError)):
            restricted_pickle.load(
                b"\x80\x05" + claim + struct.pack("<Q", 2**40) + b"short"
            )
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "work",
    [
        b"(" * 2000,
        b"}0" * 1000,
        # One array of 500 numbers, made from the memo again and again.
        b"cnumpy.core.multiarray\nscalar\n\x94"
        + b"(" + b"K\x01" * 500 + b"l\x94"
        + b"h\x00(h\x01h\x01tR0" * 100,
    ],
    ids=["marks", "dicts", "calls"],
)  # fmt: skip
def test_work_is_bounded(work, monkeypatch):
    monkeypatch.setattr(restricted_pickle, "MAX_STEPS", 1999)
    monkeypatch.setitem(
        restricted_pickle.NUMPY_STAND_INS,
        ("numpy.core.multiarray", "scalar"),
        lambda *lists: sum(map(len, lists)),
    )
    with pytest.raises(restricted_pickle.RefusedError, match="1999 steps"):
        restricted_pickle.load(pickled(work, b"N"))


def test_registered_extensions_are_refused():
    copyreg.add_extension("os", "getcwd", 240)
    try:
        data = pickled(b"\x82\xf0)R")
        assert pickle.loads(data) == os.getcwd()  # pickle keeps what it once found.
        with pytest.raises(restricted_pickle.RefusedError, match="EXT1"):
            restricted_pickle.load(data)
    finally:
        copyreg.remove_extension("os", "getcwd", 240)
        copyreg.clear_extension_cache()


@pytest.mark.parametrize(
    "make",
    [
        b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x06\x00\x00\x00latin1o",
        b"(cnumpy\ndtype\nX\x02\x00\x00\x00f8o",
        b"(X\x02\x00\x00\x00f8inumpy\ndtype\n",
        b"cnumpy\ndtype\n)\x81",
        b"cnumpy\ndtype\n)}\x92",
        b"\x8f",
    ],
    ids=["OBJ of a function", "OBJ", "INST", "NEWOBJ", "NEWOBJ_EX", "EMPTY_SET"],
)
def test_stand_ins_are_called_in_one_way_only(make):
    with pytest.raises(restricted_pickle.RefusedError, match="the instruction"):
        restricted_pickle.load(pickled(make))


def test_a_refused_name_is_printed_without_its_control_characters():
    with pytest.raises(restricted_pickle.RefusedError) as refusal:
        restricted_pickle.load(pickled(b"cos\nsystem\x1b[2J\n"))
    assert str(refusal.value) == r"the global os.system\x1b[2J"
