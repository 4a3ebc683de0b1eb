import os
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokret.retrieval import plain_pickle

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
    assert plain_pickle.load(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("dtype", ["int32", ">i8", "float64", "bool"])
def test_numpy_numbers_come_back_as_lists(protocol, dtype):
    array = np.array([0, 1, 1], dtype)
    data = pickle.dumps({"easy": array, "one": array[1]}, protocol)
    loaded = plain_pickle.load(data)
    assert loaded == {"easy": [0, 1, 1], "one": 1}
    assert type(loaded["one"]) is type(array[1].item())


def test_a_pickle_of_python_2_is_read():
    # pickle.dumps({'imlist': ['caf\xe9']}, 2) of Python 2: byte strings, not text.
    data = b"\x80\x02}q\x00U\x06imlistq\x01]q\x02U\x04caf\xe9q\x03as."
    assert plain_pickle.load(data) == {"imlist": ["café"]}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_is_run(tmp_path, protocol):
    mark = tmp_path / "mark"
    for attack in (
        Runs(os.system, f"touch {mark}"),
        Runs(eval, f"__import__('pathlib').Path({str(mark)!r}).touch()"),
        Runs(os.mkdir, str(mark)),
    ):
        data = pickle.dumps({"gnd": [attack]}, protocol)
        with pytest.raises(plain_pickle.RefusedError, match="the global"):
            plain_pickle.load(data)
        assert not mark.exists()
        pickle.loads(data)  # The attack is a real one.
        assert mark.exists()
        mark.rmdir() if mark.is_dir() else mark.unlink()


@pytest.mark.parametrize(
    "array",
    [
        np.array([[1, 2]]),
        np.array([[1], {}], object),
        np.array(["a"]),
        np.zeros(2, [("a", "i4")]),
    ],
)
def test_only_flat_arrays_of_numbers_are_admitted(array):
    with pytest.raises(plain_pickle.RefusedError):
        plain_pickle.load(pickle.dumps(array))


def test_a_shape_that_claims_more_than_the_data_holds_is_refused():
    data = pickle.dumps(np.arange(3, dtype="i1"), 2)
    assert data.count(b"K\x03\x85") == 1
    with pytest.raises(ValueError, match="does not fit"):
        plain_pickle.load(data.replace(b"K\x03\x85", b"J\xff\xff\xff\x7f\x85"))


def test_a_state_cannot_be_set_on_the_stand_ins():
    name = b"cnumpy.core.multiarray\n_reconstruct\n"
    with pytest.raises(plain_pickle.RefusedError, match="a state"):
        plain_pickle.load(b"\x80\x02" + name + b"N}U\x08__name__U\x01xs\x86b.")
    with pytest.raises(plain_pickle.RefusedError, match="codec"):
        plain_pickle.load(b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aU\x03hex\x86R.")


def test_a_huge_memo_index_costs_no_memory():
    # LONG_BINPUT 0xfffffff0: the reader in C would clear 64 GiB for it.
    assert plain_pickle.load(b"\x80\x02]r\xf0\xff\xff\xff.") == []
