import os
import stat
import sys
import tracemalloc
from collections import Counter, OrderedDict

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from tokret.errors import UserError
from tokret.io import safetensors_files, torch_pickle
from tokret.io.weight_files import read_weights, write_safetensors, write_torch


def arrays(dtypes):
    """Arrays of all the shapes and layouts that writers have trouble with."""
    numbers = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    unaligned = np.frombuffer(b"\1" + numbers.tobytes(), np.uint8)[1:].view(np.float32)
    layouts = {
        "transposed": numbers.transpose(2, 0, 1),
        "strided": numbers[:, ::2, 1:],
        "expanded": np.broadcast_to(numbers[0, 0], (3, 4)),
        "unaligned": unaligned,
        "big-endian": numbers.astype(">f4"),
        "scalar": np.array(5, np.float32),
        "empty": np.zeros((0, 3), np.float32),
    }
    return layouts | {f"as {dtype}": numbers.astype(dtype) for dtype in dtypes}


def assert_same(found, wanted):
    assert sorted(found) == sorted(wanted)
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype.newbyteorder("=")
        # NaN of ml_dtypes is not known to NumPy's comparison.
        both = (side.astype(complex) for side in (found[name], array))
        np.testing.assert_array_equal(*both, err_msg=name)


def refusal(path):
    with pytest.raises(UserError) as error:
        read_weights(path)
    line = str(error.value)
    assert line.startswith(f"{path}: ") and "\n" not in line
    return line


def test_safetensors_come_back_as_they_were_written(tmp_path):
    tensors = arrays(safetensors_files.DTYPES.values())
    path = tmp_path / "weights"
    write_safetensors(path, tensors, {"layout": "token", "step": "7"})
    file = read_weights(path)
    assert (file.kind, file.others) == ("safetensors", ())
    assert file.metadata == {"layout": "token", "step": "7"}
    assert_same(file.tensors, tensors)
    assert not any(array.flags.writeable for array in file.tensors.values())


def test_safetensors_are_mapped_and_not_loaded(tmp_path):
    path = tmp_path / "weights"
    write_safetensors(path, {"a": np.ones(2**20), "b": np.ones(2**20)}, {})
    read_weights(path)  # Whatever the first read imports.
    tracemalloc.start()
    try:
        tensors = read_weights(path).tensors
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    assert list(tensors) == ["a", "b"]


def flipped(path, at, bit=0):
    """Flips one bit of a file, and returns its bytes as they were."""
    whole = path.read_bytes()
    changed = bytearray(whole)
    changed[at] ^= 1 << bit
    path.write_bytes(changed)
    return whole


def test_any_flipped_bit_of_a_safetensors_file_is_noticed(tmp_path):
    path = tmp_path / "weights"
    tensors = {"a": np.arange(5, dtype=np.float32), "b": np.ones((2, 2), np.int16)}
    write_safetensors(path, tensors, {"format": "small"})
    assert read_weights(path).verified
    size = path.stat().st_size
    damaged = [(at, at % 8) for at in range(size)]
    name = path.read_bytes().index(b"crc32")
    damaged += [(at, bit) for at in range(name, name + 5) for bit in range(8)]
    unnoticed = []
    for at, bit in damaged:
        whole = flipped(path, at, bit)
        try:
            read_weights(path)
        except UserError:
            pass
        else:
            if whole[at : at + 1] != b" ":  # of the header
                unnoticed.append((at, bit))
        path.write_bytes(whole)
    assert unnoticed == []


def test_more_tensors_than_weights_need_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "weights"
    path.write_bytes(save({"a": np.ones(1), "b": np.ones(1)}))
    assert len(read_weights(path).tensors) == 2
    monkeypatch.setattr(safetensors_files, "MAX_TENSORS", 1)
    assert "has 2 tensors, no weights need so many" in refusal(path)


def test_the_damaged_tensor_is_named(tmp_path):
    path = tmp_path / "weights"
    tensors = {"a": np.ones(4, np.float32), "b": np.ones(4, np.float32)}
    write_safetensors(path, tensors, {})
    flipped(path, -1, 6)
    assert "damaged: b does not agree with its digest" in refusal(path)
    flipped(path, -20, 6)
    assert "damaged: a and 1 more does not agree" in refusal(path)


def test_digests_are_metadata_that_others_ignore(tmp_path):
    path = tmp_path / "weights"
    write_safetensors(path, {"a": np.ones(4)}, {"k": "v"})
    np.testing.assert_array_equal(load(path.read_bytes())["a"], np.ones(4))
    path.write_bytes(save({"a": np.ones(4)}, {"k": "v"}))
    file = read_weights(path)
    assert not file.verified and file.metadata == {"k": "v"}


@pytest.mark.parametrize("digests", ["", "{", "[]", "{}", '{"a": 1}', '{"a": "0"}'])
def test_damaged_digests_are_refused(tmp_path, digests):
    path = tmp_path / "weights"
    path.write_bytes(save({"a": np.ones(4)}, {"crc32": digests}))
    assert "damaged" in refusal(path)


@pytest.mark.parametrize(
    ("state", "found", "skipped"),
    [
        ("encoder", ["a", "b.c"], ("head.d",)),
        ("encoder.", ["a", "b.c"], ("head.d",)),
        ("encoder.b", ["c"], ("encoder.a", "head.d")),
    ],
)
def test_a_prefix_of_some_names_chooses_them(tmp_path, state, found, skipped):
    path = tmp_path / "weights"
    names = ("module.encoder.a", "module.encoder.b.c", "module.head.d")
    path.write_bytes(save({name: np.ones(1) for name in names}))
    file = read_weights(path, state)
    assert (list(file.tensors), file.others) == (found, skipped)


def test_a_state_that_is_not_in_the_file_is_an_argument_s_mistake(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(save({"encoder.a": np.ones(1), "head.d": np.ones(1)}))
    with pytest.raises(UserError, match=r"^state: .*'ema'.* it has encoder, head$"):
        read_weights(path, "ema")


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["module.a", "module.b"], ["a", "b"]),
        (["_orig_mod.module.a"], ["a"]),
        (["module._orig_mod.module.b"], ["b"]),
        (["a", "module.b"], ["a", "module.b"]),
        (["modules.a"], ["modules.a"]),
        (["n_averaged", "module.a", "module.b"], ["a", "b"]),
    ],
)
def test_a_prefix_of_all_names_is_removed(tmp_path, names, found):
    (tmp_path / "weights").write_bytes(save({name: np.ones(1) for name in names}))
    assert list(read_weights(tmp_path / "weights").tensors) == found


@pytest.mark.parametrize("name", ["", "module.", "a\nb", "\x1b[2J", "n" * 501])
def test_an_odd_name_is_refused(tmp_path, name):
    (tmp_path / "weights").write_bytes(save({name: np.ones(1)}))
    assert "a tensor's name is empty, odd" in refusal(tmp_path / "weights")


def header(text, data=b""):
    return len(text).to_bytes(8, "little") + text.encode() + data


SAFE = save({"a": np.arange(4, dtype=np.int16), "b": np.ones((2, 2))}, {"k": "v"})
FOUR_BITS = '{"a":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}}'
HUGE = '{"a":{"dtype":"I8","shape":[0,18446744073709551615],"data_offsets":[0,0]}}'
GAP = '{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}'


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>", "neither a PyTorch nor a safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1", "neither a PyTorch nor"),
        (b"\x00" * 100, "neither a PyTorch nor"),
        (save({}), "holds no tensors"),
        (SAFE[:-1], "truncated or malformed safetensors"),
        (SAFE[:40], "truncated or malformed safetensors"),
        (SAFE + b"more", "truncated or malformed safetensors"),
        (header(GAP, b"12"), "truncated or malformed safetensors"),
        (header(FOUR_BITS, b"1"), "tensor a is F4; save it as one of F64, F32"),
        (header(HUGE), "tensor a has an invalid shape"),
        (b"\0\0\0\2\0\0\0\0{", "header has 33554432 bytes"),
    ],
)
def test_a_file_that_is_no_weight_file_is_refused(tmp_path, data, words):
    (tmp_path / "weights").write_bytes(data)
    assert words in refusal(tmp_path / "weights")


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "No such file" in refusal(tmp_path / "missing")
    assert "is a folder" in refusal(tmp_path)
    assert "is a named pipe" in refusal(tmp_path / "pipe")


@settings(derandomize=True, deadline=None, max_examples=150)
@given(
    edits=st.lists(
        st.tuples(st.floats(0, 1), st.binary(max_size=4)), min_size=1, max_size=4
    )
)
def test_damaged_safetensors_are_read_or_refused(tmp_path_factory, edits):
    data = SAFE
    for where, new in edits:
        at = int(where * len(data))
        data = data[:at] + new + data[at + len(new) :]
    path = tmp_path_factory.getbasetemp() / f"damaged-{os.getpid()}.safetensors"
    path.write_bytes(data)
    try:
        tensors = read_weights(path).tensors
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert sum(len(array.tobytes()) for array in tensors.values()) <= len(data)


def torch_writer(path, tensors):
    pytest.importorskip("torch")
    write_torch(path, tensors)


def safetensors_writer(path, tensors):
    write_safetensors(path, tensors, {})


@pytest.mark.parametrize("write", [safetensors_writer, torch_writer])
@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({}, "holds no tensors"),
        ({"": np.ones(1)}, "name is empty"),
        ({"a": np.ones(1, "m8[s]")}, r"tensor a is timedelta64\[s\]"),
        ({"a": np.array([None])}, "tensor a is object"),
    ],
)
def test_what_the_format_lacks_is_not_written(tmp_path, write, tensors, words):
    with pytest.raises(UserError, match=f"cannot be written: .*{words}"):
        write(tmp_path / "weights", tensors)
    assert not list(tmp_path.iterdir())


def test_a_name_that_safetensors_reserves_is_not_written(tmp_path):
    with pytest.raises(UserError, match="__metadata__"):
        write_safetensors(tmp_path / "weights", {"__metadata__": np.ones(1)}, {})


@pytest.mark.parametrize("write", [safetensors_writer, torch_writer])
def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, write, monkeypatch):
    path = tmp_path / "weights"
    path.write_bytes(b"before")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: os.truncate("/nonexistent", 0))
        with pytest.raises(UserError, match="cannot be written: No such file"):
            write(path, {"a": np.ones(1)})
    assert path.read_bytes() == b"before"
    write(path, {"a": np.ones(1)})
    assert list(tmp_path.iterdir()) == [path]
    assert list(read_weights(path).tensors) == ["a"]


@pytest.mark.parametrize("write", [safetensors_writer, torch_writer])
def test_permissions_are_those_of_any_new_file(tmp_path, write):
    (tmp_path / "other").touch()
    write(tmp_path / "weights", {"a": np.ones(1)})
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert len(modes) == 1


@pytest.mark.parametrize("write", [safetensors_writer, torch_writer])
def test_a_place_that_cannot_be_written_is_named(tmp_path, write):
    for path in (tmp_path / "missing" / "weights", tmp_path):
        with pytest.raises(UserError, match="cannot be written") as error:
            write(path, {"a": np.ones(1)})
        assert str(error.value).startswith(f"{path}: ")


@pytest.mark.parametrize("write", [safetensors_writer, torch_writer])
def test_arrays_of_any_memory_layout_are_written_in_their_own_order(tmp_path, write):
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    tensors = {
        "fortran": np.asfortranarray(values),
        "transposed": values.transpose(2, 0, 1),
        "strided": values[:, ::2, 1:],
        "reversed": values[::-1, :, ::-1],
        "expanded": np.broadcast_to(values[0, 0], (3, 4)),
        "bfloat16": values.astype(ml_dtypes.bfloat16).T,
    }
    assert not any(array.flags.c_contiguous for array in tensors.values())
    write(tmp_path / "weights", tensors)
    found = read_weights(tmp_path / "weights").tensors
    assert_same(found, tensors)
    assert all(array.flags.c_contiguous for array in found.values())


def test_without_pytorch_its_files_are_read_but_not_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match="pip install torch"):
        write_torch(tmp_path / "weights.pth", {"a": np.ones(1)})


def test_pytorch_reads_what_is_written_for_it(tmp_path):
    torch = pytest.importorskip("torch")
    tensors = arrays(torch_pickle.DTYPES.values())
    path = tmp_path / "weights.pth"
    write_torch(path, tensors)
    loaded = torch.load(path, weights_only=True)
    assert type(loaded) is OrderedDict
    assert {name: str(tensor.dtype) for name, tensor in loaded.items()} == {
        name: f"torch.{array.dtype.name}" for name, array in tensors.items()
    }
    for name, tensor in loaded.items():
        found = tensor.to(torch.complex128).numpy()
        np.testing.assert_array_equal(found, tensors[name].astype(complex), name)
    assert_same(read_weights(path).tensors, tensors)
    assert list(read_weights(path).tensors) == list(tensors)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
@pytest.mark.parametrize("form", ["zip", "legacy"])
@pytest.mark.parametrize("protocol", [2, 4])
def test_what_pytorch_writes_is_read_as_pytorch_reads_it(tmp_path, form, protocol):
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last),
        torch.nn.BatchNorm2d(4),
        torch.nn.Linear(4, 5, dtype=torch.bfloat16),
    )
    state = model.state_dict()
    table = torch.arange(20.0).reshape(4, 5)
    state |= {"slice": table[1:3, ::2], "tied": table, "turned": table.T}
    state["parameter"] = torch.nn.Parameter(table[0])
    state["expanded"] = table[0].expand(3, 5)
    state["attributes"] = torch.nn.Parameter(table[1])
    state["attributes"].decayed = {"by": 0.1}
    state["noted"] = table[2].clone()
    state["noted"].note = "a tensor with attributes"
    for kind in ("uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2"):
        # An offset in elements, into a storage that counts bytes.
        state[kind] = torch.arange(6).to(getattr(torch, kind)).view(2, 3)[1:, ::2]
    whole = {
        "state_dict": OrderedDict((f"module.{n}", t) for n, t in state.items()),
        "epoch": 3,
        "optimizer": torch.optim.AdamW(model.parameters()).state_dict(),
        "size": torch.Size([1, 2]),
        "device": torch.device("cpu"),
        "loss": np.float32(0.5),
        "counter": Counter([1, 1, 2]),
        "set": {1, 2} if protocol == 2 else set(),
        "dtypes": [torch.float32, torch.quint8, torch.strided],
        "bytes": bytearray(b"12"),
        "sparse": torch.eye(2).to_sparse(),
        "scaled": torch.quantize_per_tensor(table, 0.1, 0, torch.qint8),
    }
    path = tmp_path / "weights"
    torch.save(
        whole,
        path,
        pickle_protocol=protocol,
        _use_new_zipfile_serialization=form == "zip",
    )
    file = read_weights(path)
    assert file.kind == f"PyTorch, {form}"
    assert file.others == tuple(name for name in whole if name != "state_dict")
    assert list(file.tensors) == list(state)
    for name, tensor in state.items():
        found = file.tensors[name]
        assert found.shape == tuple(tensor.shape)
        assert str(tensor.dtype) == f"torch.{found.dtype.name}"
        np.testing.assert_array_equal(
            found.astype(np.float64), tensor.detach().double().numpy(), err_msg=name
        )
    assert np.shares_memory(file.tensors["tied"], file.tensors["slice"])


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_torchscript_archive_of_pytorch_is_refused(tmp_path):
    torch = pytest.importorskip("torch")
    module = torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2))
    module.save(tmp_path / "weights.pt")
    assert "TorchScript" in refusal(tmp_path / "weights.pt")


def test_a_whole_pickled_model_is_refused(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "weights.pt")
    line = refusal(tmp_path / "weights.pt")
    assert "torch.nn.modules.linear.Linear" in line and "state_dict()" in line
