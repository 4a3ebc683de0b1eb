import os
import stat
import sys
import tracemalloc
from collections import OrderedDict

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from tokret.errors import UserError
from tokret.io.torch_pickle import STORAGE_DTYPES
from tokret.io.weight_files import (
    SAFETENSORS_DTYPES,
    read_weights,
    write_safetensors,
    write_torch,
)


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
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def refusal(path):
    with pytest.raises(UserError) as error:
        read_weights(path)
    line = str(error.value)
    assert line.startswith(f"{path}: ") and "\n" not in line
    return line


def test_safetensors_come_back_as_they_were_written(tmp_path):
    tensors = arrays(SAFETENSORS_DTYPES.values())
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


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["module.a", "module.b"], ["a", "b"]),
        (["_orig_mod.module.a"], ["a"]),
        (["module._orig_mod.module.b"], ["b"]),
        (["a", "module.b"], ["a", "module.b"]),
        (["modules.a"], ["modules.a"]),
    ],
)
def test_a_prefix_of_all_names_is_removed(tmp_path, names, found):
    (tmp_path / "weights").write_bytes(save({name: np.ones(1) for name in names}))
    assert list(read_weights(tmp_path / "weights").tensors) == found


@pytest.mark.parametrize(
    "name", ["", "module.", "a\nb", "\x1b[2J", "n" * 501, "right\u202eleft"]
)
def test_an_odd_name_is_refused(tmp_path, name):
    (tmp_path / "weights").write_bytes(save({name: np.ones(1)}))
    assert "a tensor's name is empty, odd" in refusal(tmp_path / "weights")


def header(text, data=b""):
    return len(text).to_bytes(8, "little") + text.encode() + data


SAFE = save({"a": np.arange(4, dtype=np.int16), "b": np.ones((2, 2))}, {"k": "v"})
EIGHT_BITS = '{"a":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}}'
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
        (header(EIGHT_BITS, b"1"), "tensor a is F8_E4M3; save it as one of F64, F32"),
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
    assert "not a file" in refusal(tmp_path)
    assert "not a file" in refusal(tmp_path / "pipe")


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
        ({"a": np.ones(1, np.complex64)}, "tensor a is complex64"),
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
    with pytest.raises(UserError, match=r"pip install 'tokret\[torch\]'"):
        write_torch(tmp_path / "weights.pth", {"a": np.ones(1)})


def test_pytorch_reads_what_is_written_for_it(tmp_path):
    torch = pytest.importorskip("torch")
    tensors = arrays(STORAGE_DTYPES.values())
    path = tmp_path / "weights.pth"
    write_torch(path, tensors)
    loaded = torch.load(path, weights_only=True)
    assert type(loaded) is OrderedDict
    bits = {
        n: t.view(torch.int16) if t.dtype is torch.bfloat16 else t
        for n, t in loaded.items()
    }
    wanted = {
        n: a.view(np.int16) if a.dtype == ml_dtypes.bfloat16 else a
        for n, a in tensors.items()
    }
    assert_same({name: tensor.numpy() for name, tensor in bits.items()}, wanted)
    assert_same(read_weights(path).tensors, tensors)
    assert list(read_weights(path).tensors) == list(tensors)


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
    whole = {
        "state_dict": OrderedDict((f"module.{n}", t) for n, t in state.items()),
        "epoch": 3,
        "optimizer": torch.optim.AdamW(model.parameters()).state_dict(),
        "size": torch.Size([1, 2]),
        "device": torch.device("cpu"),
        "loss": np.float32(0.5),
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
    assert file.others == ("epoch", "optimizer", "size", "device", "loss")
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
