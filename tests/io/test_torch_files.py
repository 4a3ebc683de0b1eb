"""Files of both formats, made here by hand: no PyTorch is needed to know its files."""

import io
import os
import struct
import tracemalloc
import zipfile

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokret.errors import UserError
from tokret.io.torch_files import LEGACY_MAGIC, LEGACY_VERSION, MAX_DIRECTORY
from tokret.io.weight_files import read_weights

CLASSES = {
    "float64": "Double",
    "float32": "Float",
    "float16": "Half",
    "bfloat16": "BFloat16",
    "int64": "Long",
    "int32": "Int",
    "int16": "Short",
    "int8": "Char",
    "uint8": "Byte",
    "bool": "Bool",
    "complex64": "ComplexFloat",
    "complex128": "ComplexDouble",
}
STORAGES = {
    "7": np.arange(6, dtype=np.float32),
    "0": np.array([1, 2.5, -3], ml_dtypes.bfloat16),
    "11": np.array([12], np.int64),
}


# The few instructions of pickle that torch.save writes.
def text(value):
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value):
    return b"\x8a\x0a" + value.to_bytes(10, "little", signed=True)


def several(*codes):
    return b"(" + b"".join(codes) + b"t"


def call(name, *codes):
    return b"c%s\n" % name + several(*codes) + b"R"


def mapping(items, new=b"}"):
    pairs = (text(key) + code for key, code in items.items())
    return new + b"(" + b"".join(pairs) + b"u"


def ordered(items):
    return mapping(items, call(b"collections\nOrderedDict"))


def tensor(key, shape, strides, offset=0, part=(), storages=STORAGES):
    array = storages[key]
    name = f"ctorch\n{CLASSES[array.dtype.name]}Storage\n".encode()
    pid = (text("storage"), name, text(key), text("cpu"), number(array.size), *part)
    return call(
        b"torch._utils\n_rebuild_tensor_v2",
        several(*pid) + b"Q",
        number(offset),
        several(*map(number, shape)),
        several(*map(number, strides)),
        b"\x89",
        ordered({}),
    )


def pickled(code):
    return b"\x80\x02" + code + b"."


def zip_file(top, storages=STORAGES, extra=(), compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled(top))
        for name, data in extra:
            archive.writestr(name, data)
        for key, array in storages.items():
            archive.writestr(f"archive/data/{key}", array.tobytes())
        archive.writestr("archive/version", "3\n")
    return file.getvalue()


MACHINE = mapping({"protocol_version": number(1001), "little_endian": b"\x88"})
LEGACY_HEAD = (number(LEGACY_MAGIC), number(LEGACY_VERSION), MACHINE)


def legacy_file(top, storages=STORAGES, head=LEGACY_HEAD):
    keys = b"](" + b"".join(map(text, storages)) + b"e"
    runs = (struct.pack("<q", a.size) + a.tobytes() for a in storages.values())
    return b"".join(map(pickled, (*head, top, keys))) + b"".join(runs)


FORMATS = {"zip": zip_file, "legacy": legacy_file}
TOP = ordered(
    {
        "conv.weight": tensor("7", (3, 2), (1, 3)),
        "conv.tied": tensor("7", (2, 2), (3, 1), offset=1),
        "norm.bias": call(
            b"torch._utils\n_rebuild_parameter", tensor("0", (3,), (1,)), b"\x88"
        ),
        "norm.steps": tensor("11", (), ()),
    }
)


@pytest.fixture
def read(tmp_path):
    def read(data, state=None):
        path = tmp_path / "weights"
        path.write_bytes(data)
        return read_weights(path, state)

    return read


def refusal(read, data):
    with pytest.raises(UserError) as error:
        read(data)
    line = str(error.value)
    assert "weights: " in line and ";" in line and "\n" not in line
    return line


@pytest.mark.parametrize("form", FORMATS)
def test_a_state_dict_comes_back(read, form):
    file = read(FORMATS[form](TOP))
    assert (file.kind, file.metadata, file.others) == (f"PyTorch, {form}", {}, ())
    found = {name: (a.dtype.name, a.tolist()) for name, a in file.tensors.items()}
    assert found == {
        "conv.weight": ("float32", [[0, 3], [1, 4], [2, 5]]),
        "conv.tied": ("float32", [[1, 2], [4, 5]]),
        "norm.bias": ("bfloat16", [1, 2.5, -3]),
        "norm.steps": ("int64", 12),
    }
    assert list(found) == ["conv.weight", "conv.tied", "norm.bias", "norm.steps"]
    assert np.may_share_memory(file.tensors["conv.weight"], file.tensors["conv.tied"])
    assert not any(array.flags.writeable for array in file.tensors.values())


@pytest.mark.parametrize(
    ("state", "found", "skipped"),
    [
        ("teacher", ["backbone.a", "head.b"], ("epoch",)),
        ("teacher.backbone", ["a"], ("epoch", "head.b")),
        ("student.backbone.", ["a"], ("epoch",)),
    ],
)
def test_a_dict_and_a_prefix_choose_together(read, state, found, skipped):
    scalar = tensor("11", (), ())
    student = mapping({"module.backbone.a": scalar})
    teacher = mapping({"backbone.a": scalar, "head.b": scalar})
    top = mapping({"student": student, "teacher": teacher, "epoch": number(1)})
    file = read(zip_file(top), state)
    assert (list(file.tensors), file.others) == (found, skipped)
    with pytest.raises(UserError, match="^state: .* 2 dicts of tensors, student, teac"):
        read(zip_file(top))


def test_any_flipped_bit_of_a_zip_file_is_noticed_or_harmless(read):
    data = zip_with("archive/byteorder", b"little")
    wanted = {name: a.tobytes() for name, a in read(data).tensors.items()}
    read_all = 0
    for at in range(0, len(data), 3):
        damaged = bytearray(data)
        damaged[at] ^= 1 << at % 8
        try:
            file = read(bytes(damaged))
        except UserError:
            continue
        read_all += 1  # times, padding, names that are nowhere looked at
        assert {name: a.tobytes() for name, a in file.tensors.items()} == wanted, at
    assert read_all < len(data) / 6


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("dtype", CLASSES)
def test_every_dtype_comes_back(read, form, dtype):
    storages = {"0": np.array([0, 1, 100], dtype)}
    top = mapping(
        {"state_dict": mapping({"a": tensor("0", (3,), (1,), 0, (), storages)})}
    )
    array = read(FORMATS[form](top, storages)).tensors["a"]
    assert array.dtype == storages["0"].dtype
    np.testing.assert_array_equal(array, storages["0"])


def test_a_part_of_a_legacy_storage_comes_back(read):
    part = several(text("70"), number(2), number(3))
    top = mapping({"a": tensor("7", (2,), (1,), 1, (part,)), "b": tensor("0", (), ())})
    storages = {key: STORAGES[key] for key in ("7", "0")}
    np.testing.assert_array_equal(read(legacy_file(top, storages)).tensors["a"], [3, 4])


@pytest.mark.parametrize("form", FORMATS)
def test_weights_are_mapped_and_not_loaded(read, form):
    storages = {"0": np.zeros(2**20, np.float64)}
    data = FORMATS[form](
        mapping({"a": tensor("0", (2**20,), (1,), 0, (), storages)}), storages
    )
    read(data)  # Whatever the first read imports.
    tracemalloc.start()
    try:
        array = read(data).tensors["a"]
        assert tracemalloc.get_traced_memory()[1] < len(data) / 8
    finally:
        tracemalloc.stop()
    assert array.nbytes == 2**23


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_that_would_run_something_is_refused(read, form, tmp_path):
    mark = tmp_path / "mark"
    attack = call(b"os\nsystem", text(f"touch {mark}"))
    line = refusal(
        read, FORMATS[form](ordered({"a": tensor("7", (), ()), "b": attack}))
    )
    assert "the global os.system" in line and "nothing was run" in line
    assert not mark.exists()


@pytest.mark.parametrize("part", ["data.pkl", "data/7", "data/0", "byteorder"])
def test_an_entry_of_a_wrong_checksum_is_refused(read, part):
    data = zip_with("archive/byteorder", b"little")
    assert read(data).verified
    directory = data.index(b"PK\1\2")
    at = data.index(f"archive/{part}".encode(), directory) - 30  # of its CRC-32
    damaged = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    assert f"entry archive/{part} does not agree" in refusal(read, damaged)


def test_a_flipped_bit_of_a_weight_is_noticed(read):
    data = zip_file(TOP)
    at = data.index(STORAGES["7"].tobytes()) + 7
    damaged = data[:at] + bytes([data[at] ^ 64]) + data[at + 1 :]
    line = refusal(read, damaged)
    assert "damaged: its entry archive/data/7" in line


def test_a_file_without_checksums_is_read_and_not_called_verified(read):
    data = zip_file(TOP)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        sums = {struct.pack("<I", info.CRC) for info in archive.infolist()}
    for checksum in sums:  # as PyTorch writes them if it computes none
        data = data.replace(checksum, bytes(4))
    file = read(data)
    assert not file.verified
    assert file.tensors["conv.weight"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert not read(legacy_file(TOP)).verified


def test_storages_in_the_same_bytes_are_refused(read):
    same = {"1": np.arange(3, dtype=np.float32), "2": np.arange(3, dtype=np.float32)}
    top = mapping({k: tensor(k, (3,), (1,), 0, (), same) for k in same})
    data = bytearray(zip_file(top, same))
    first, second = (
        data.index(f"archive/data/{key}".encode(), data.index(b"PK\1\2"))
        for key in same
    )
    data[second - 4 : second] = data[first - 4 : first]  # where its header is
    assert "storage 2 is in the bytes of another" in refusal(read, bytes(data))


@pytest.mark.parametrize("place", range(3))
def test_no_pickle_of_a_legacy_file_runs_anything(read, place, tmp_path):
    head = list(LEGACY_HEAD)
    head[place] = call(b"os\nsystem", text(f"touch {tmp_path / 'mark'}"))
    assert "the global os.system" in refusal(read, legacy_file(TOP, head=head))
    assert not (tmp_path / "mark").exists()


def zip_with(name, data=b""):
    return zip_file(TOP, extra=[(name, data)])


def patched(old, new, data=None):
    data = data or zip_file(TOP)
    assert old in data
    return data.replace(old, new)


# How the entries of a directory begin, with their flags and method at the end.
ENTRY = struct.pack("<4s4B2H", b"PK\1\2", 20, 3, 20, 0, 0, 0)
ENCRYPTED = struct.pack("<4s4B2H", b"PK\1\2", 20, 3, 20, 0, 1, 0)
BEYOND = mapping({"a": tensor("11", (2,), (1,))})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (zip_file(TOP, compression=zipfile.ZIP_DEFLATED), "compressed or encrypted"),
        (patched(ENTRY, ENCRYPTED), "compressed or encrypted"),
        (patched(b"data/8", b"data/0", zip_with("archive/data/8")), "of one name"),
        (zip_with("other/data.pkl", pickled(TOP)), "torch.save did not write"),
        (patched(b"data.pkl", b"data.pxl"), "torch.save did not write"),
        (zip_with("archive/byteorder", b"big"), "big-endian"),
        (zip_with("archive/code/m.py"), "a TorchScript archive, which is a program"),
        (zip_with("archive/constants.pkl"), "a TorchScript archive"),
        (zip_file(TOP, {"7": STORAGES["7"]}), "lacks storage 0"),
        (zip_file(TOP, {**STORAGES, "0": np.zeros(2)}), "has 16 bytes and its pickle"),
        (b"PK\3\4" + patched(b"PK\3\4", b"PK\3\5")[4:], "malformed at its entry"),
        (zip_file(BEYOND), "tensor a reaches to element 1 of a storage that has 1"),
    ],
)
def test_a_zip_file_that_is_not_what_torch_wrote_is_refused(read, data, words):
    assert words in refusal(read, data)


def test_an_entry_that_ends_beyond_the_file_is_refused(read):
    storages = {"7": np.zeros(3, np.uint8)}
    top = mapping({"a": tensor("7", (3,), (1,), 0, (), storages)})
    data = zip_file(top, storages)
    at = data.index(b"PK\1\2", data.index(b"PK\1\2") + 1)  # The storage's entry.
    size = struct.pack("<II", 2**31, 2**31)
    data = data[: at + 20] + size + data[at + 28 :]
    assert "malformed at its entry archive/data/7" in refusal(read, data)


def test_a_directory_of_entries_that_is_too_large_is_refused(read):
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 9, 9, MAX_DIRECTORY + 1, 8, 0)
    data = b"PK\3\4" + b"\0" * (MAX_DIRECTORY + 5) + end
    assert "directory is too large" in refusal(read, data)


OLD = (number(LEGACY_MAGIC), number(1000), MACHINE)
BIG_ENDIAN = (*LEGACY_HEAD[:2], mapping({"little_endian": b"\x89"}))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (pickled(mapping({"a": number(1)})), "a pickle that torch.save did not write"),
        (legacy_file(TOP, head=OLD), "unknown version"),
        (legacy_file(TOP, head=BIG_ENDIAN), "big-endian"),
        (legacy_file(TOP, {"7": STORAGES["7"]}), "not those of its tensors"),
        (legacy_file(TOP, STORAGES | {"12": STORAGES["7"]}), "not those of its"),
        (legacy_file(TOP, STORAGES | {"11": np.zeros(2, "i4")}), "11 has 2 elements"),
        (legacy_file(TOP)[:-1], "truncated"),
        (b"".join(map(pickled, (*LEGACY_HEAD, TOP, number(3)))), "no keys"),
        (legacy_file(BEYOND, {"11": STORAGES["11"]}), "a reaches to element 1"),
    ],
)
def test_a_legacy_file_that_is_not_what_torch_wrote_is_refused(read, data, words):
    assert words in refusal(read, data)


@pytest.mark.parametrize("form", FORMATS)
def test_a_storage_that_claims_the_world_is_refused_unread(read, form):
    huge = np.lib.stride_tricks.as_strided(STORAGES["7"], (2**47,), (0,))
    top = mapping({"a": tensor("7", (2**47,), (1,), 0, (), {"7": huge})})
    line = refusal(read, FORMATS[form](top, {"7": STORAGES["7"]}))
    assert f"{4 * 2**47}" in line or "truncated" in line


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_cut_anywhere_is_refused(read, form):
    data = FORMATS[form](TOP)
    for length in (*range(0, len(data), 7), len(data) - 1):
        refusal(read, data[:length])


@pytest.mark.parametrize("form", FORMATS)
@settings(derandomize=True, deadline=None, max_examples=150)
@given(
    edits=st.lists(
        st.tuples(st.floats(0, 1), st.binary(max_size=4)), min_size=1, max_size=4
    )
)
def test_a_damaged_file_is_read_or_refused(tmp_path_factory, form, edits):
    data = FORMATS[form](TOP)
    for where, new in edits:
        at = int(where * len(data))
        data = data[:at] + new + data[at + len(new) :]
    path = tmp_path_factory.getbasetemp() / f"damaged-{form}-{os.getpid()}"
    path.write_bytes(data)
    try:
        tensors = read_weights(path).tensors
    except UserError as error:
        assert "\n" not in str(error)
    else:
        for array in tensors.values():
            assert len(array.tobytes()) <= 16 * len(data)
