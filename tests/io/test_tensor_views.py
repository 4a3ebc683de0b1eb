import tracemalloc

import numpy as np
import pytest

from tokret.io.tensor_views import MAX_EXPANSION, checked_shape, views_of
from tokret.io.torch_pickle import FaultError, Storage, Tensor

# Five bytes of something else, then six float32.
RAW = np.frombuffer(b"other" + np.arange(6, dtype="<f4").tobytes(), np.uint8)
STORAGE = Storage("0", np.dtype("<f4"), 6, 0, 6)


def view(offset, shape, strides, storage=STORAGE, raw=RAW):
    tensor = Tensor(storage, offset, shape, strides)
    return views_of({"w": tensor}, {"0": 5}, raw)["w"]


@pytest.mark.parametrize(
    ("offset", "shape", "strides", "values"),
    [
        (0, (2, 3), (3, 1), [[0, 1, 2], [3, 4, 5]]),
        (0, (3, 2), (1, 3), [[0, 3], [1, 4], [2, 5]]),
        (1, (2, 2), (3, 1), [[1, 2], [4, 5]]),
        (5, (), (), 5),
        (4, (2, 1), (1, 2**40), [[4], [5]]),
        (4, (3, 2), (0, 1), [[4, 5]] * 3),
        (9, (0, 2**40), (7, 1), np.zeros((0, 2**40))),
    ],
    ids=["plain", "transposed", "slice", "scalar", "one wide", "expanded", "empty"],
)
def test_offset_and_strides_are_kept(offset, shape, strides, values):
    array = view(offset, shape, strides)
    np.testing.assert_array_equal(array, np.array(values, "<f4"))
    assert array.dtype == np.float32
    assert not array.flags.writeable
    assert not array.size or np.may_share_memory(array, RAW)


def test_a_part_of_a_storage_has_an_offset():
    part = Storage("0", np.dtype("<f4"), 6, 2, 3)
    np.testing.assert_array_equal(view(1, (2,), (1,), part), [3, 4])
    with pytest.raises(FaultError, match="element 3 of a storage that has 3"):
        view(1, (3,), (1,), part)


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (6, (), ()),
        (4, (3,), (1,)),
        (0, (2, 3), (4, 1)),
        (0, (2,), (2**47,)),
        (2**47, (1,), (1,)),
    ],
)
def test_a_tensor_that_leaves_its_storage_is_named(offset, shape, strides):
    with pytest.raises(FaultError, match="tensor w reaches to element"):
        view(offset, shape, strides)


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (-1, (1,), (1,)),
        (0, (-1,), (1,)),
        (5, (2,), (-1,)),
        (2**70, (1,), (1,)),
        (0, (2**70, 0), (1, 1)),
        (0, (0, 2**40, 2**40), (0, 0, 0)),
        (0, (2**40, 2**40), (0, 0)),
        (0, (2,), (1, 1)),
        (0, [2], [1]),
        (0, (True,), (1,)),
        (0, (1.0,), (1,)),
        (0, (1,) * 33, (1,) * 33),
        (None, (1,), (1,)),
    ],
)
def test_an_invalid_tensor_is_named(offset, shape, strides):
    with pytest.raises(FaultError, match="tensor w has (an |no |)(invalid|storage)"):
        view(offset, shape, strides)


def test_a_tensor_of_something_other_than_a_storage_is_named():
    with pytest.raises(FaultError, match="tensor w has no storage"):
        view(0, (1,), (1,), storage="0")


def test_strides_of_nothing_neither_allocate_nor_pass():
    tracemalloc.start()
    try:
        with pytest.raises(FaultError, match="16 times the bytes of the file"):
            view(0, (2**40,), (0,))
        assert tracemalloc.get_traced_memory()[1] < 2**16
    finally:
        tracemalloc.stop()


def test_tied_tensors_have_the_same_bytes_until_there_are_too_many():
    tensor = Tensor(STORAGE, 0, (6,), (1,))
    tied = {f"w{i}": tensor for i in range(MAX_EXPANSION)}
    first, second, *_ = views_of(tied, {"0": 5}, RAW).values()
    assert np.shares_memory(first, second)
    with pytest.raises(FaultError, match="w19"):
        views_of({f"w{i}": tensor for i in range(20)}, {"0": 5}, RAW)


def test_shapes_of_nothing_are_still_shapes():
    assert checked_shape("w", (0, 3), 4) == (0, 3)
    with pytest.raises(FaultError, match="invalid shape"):
        checked_shape("w", (0, 2**47, 2**47), 4)
