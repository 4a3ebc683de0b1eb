import os

import numpy as np
import pytest

from tokret.errors import UserError
from tokret.io import descriptor_files


@pytest.fixture
def saved(tmp_path):
    def save(array):
        np.save(tmp_path / "d.npy", array)
        return tmp_path / "d.npy"

    return save


@pytest.mark.parametrize("dtype", descriptor_files.DTYPES)
@pytest.mark.parametrize("order", ["C", "F"])
def test_descriptors_come_back_as_they_were_saved(saved, dtype, order):
    array = np.arange(12, dtype=dtype).reshape(4, 3)
    path = saved(np.asarray(array, order=order))
    read = descriptor_files.read_descriptors(path, rows=4, name="imlist")
    assert isinstance(read, np.memmap)
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, array)
    with pytest.raises(ValueError, match="read-only"):
        read[0, 0] = 1


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(3), r"shape \(3,\)"),
        (np.zeros((1, 2, 3)), r"shape \(1, 2, 3\)"),
        (np.zeros((2, 3), int), "has dtype int64"),
        (np.zeros((2, 3), bool), "has dtype bool"),
        (np.zeros((2, 3), complex), "has dtype complex128"),
        (np.zeros((2, 3), ">f4"), "has dtype >f4"),
        (np.array([["a", {}]], object), "has dtype object"),
        (np.zeros((0, 3)), "is empty"),
        (np.zeros((3, 0)), "is empty"),
        (np.zeros((4, 3)), "has 4 rows and imlist has 5"),
    ],
)
def test_what_cannot_be_searched_is_refused(saved, array, message):
    path = saved(array)
    with pytest.raises(UserError, match=message) as caught:
        descriptor_files.read_descriptors(path, rows=5, name="imlist")
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_bad_rows_are_counted_over_all_blocks(saved, monkeypatch, value):
    monkeypatch.setattr(descriptor_files, "_CHECKED_ROWS", 4)
    array = np.zeros((11, 3), np.float32)
    array[[6, 7, 10], [0, 2, 1]] = value
    with pytest.raises(UserError, match="3 of 11 rows .* first is row 6;"):
        descriptor_files.read_descriptors(saved(array))


def test_missing_cut_and_foreign_files(tmp_path, saved):
    with pytest.raises(UserError, match="cannot be read: No such file"):
        descriptor_files.read_descriptors(tmp_path / "none.npy")
    path = saved(np.zeros((4, 3)))
    whole = path.read_bytes()
    path.write_bytes(whole[:-8])
    with pytest.raises(UserError, match="cut short"):
        descriptor_files.read_descriptors(path)
    for data in (b"", b"PK\x03\x04 a zip archive", whole[:6] + b"\x09" + whole[7:]):
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"not an \.npy file"):
            descriptor_files.read_descriptors(path)


SHAPES = {
    "too large": "(2**63, 3)",
    "overflowing": "(4611686018427387904, 4)",
    "negative": "(-1, 3)",
    "of truth values": "(True, True)",
    "of Python 2": "(400L, 3L)",
}
HEADERS = {
    "of a flipped bit": "{'descr': '<f4', 'fortran_order': False, 'shape': (4, 3), |",
    "of objects": "{'descr': '|O', 'fortran_order': False, 'shape': (4, 3), }",
    "nested": "(" * 500,
    "of nothing": "",
    **{
        name: f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"
        for name, shape in SHAPES.items()
    },
}


@pytest.mark.parametrize("text", HEADERS.values(), ids=HEADERS)
def test_odd_headers_are_one_line(tmp_path, text):
    path = tmp_path / "d.npy"
    header = text.encode().ljust(1000) + b"\n"
    start = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little")
    path.write_bytes(start + header + bytes(48))
    with pytest.raises(UserError, match=rf"{path}: ") as caught:
        descriptor_files.read_descriptors(path)
    assert "\n" not in str(caught.value)


def test_pipes_and_folders_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.npy")
    for path in (tmp_path, tmp_path / "pipe.npy"):
        with pytest.raises(UserError, match="where a file is expected"):
            descriptor_files.read_descriptors(path)
