"""Files of any program, made here: what is in them is listed, and nothing is run."""

import os
import pickle

import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint import StandardCheckpointer
from orbax.checkpoint import v1 as ocp
from safetensors.numpy import save_file

from tests.io.test_torch_files import (
    FORMATS,
    STORAGES,
    call,
    mapping,
    number,
    ordered,
    tensor,
    text,
    zip_file,
)
from tokret.convert import contents
from tokret.convert.contents import list_contents
from tokret.errors import UserError
from tokret.io.weight_files import write_safetensors


def listed(found):
    return {".".join(e.place): (e.dtype, e.shape) for e in found.entries}


@pytest.mark.parametrize("form", FORMATS)
def test_dicts_in_dicts_and_lists_of_pytorch(tmp_path, form):
    names = ordered({"conv.weight": tensor("7", (3, 2), (1, 3))})
    state = mapping({"exp_avg": tensor("0", (3,), (1,))})
    shadow = b"](" + tensor("11", (), ()) + b"e"
    top = mapping(
        {
            "model": names,
            "optim": mapping({"state": state, "lr": number(1)}),
            "shadow": shadow,
            "name": text("resnet"),
            "sparse": call(b"torch._utils\n_rebuild_sparse_tensor", b"NN"),
        }
    )
    path = tmp_path / "weights"
    path.write_bytes(FORMATS[form](top, STORAGES))
    found = list_contents(path)
    assert listed(found) == {
        "model.conv.weight": ("float32", (3, 2)),
        "optim.state.exp_avg": ("bfloat16", (3,)),
        "shadow.0": ("int64", ()),
    }
    assert found.others == {"optim.lr": "int", "name": "str", "sparse": "sparse tensor"}
    assert found.verified == (form == "zip")
    assert sum(entry.size for entry in found.entries) == 10


def test_a_dict_in_many_places_is_listed_once(tmp_path):
    inner = mapping({"a": tensor("7", (), ()), "b": tensor("0", (), ())}) + b"q\x01"
    # 2 ** 20 places, were each of them listed.
    for i in range(2, 22):
        inner = b"}(" + text("a") + inner + text("b") + b"h" + bytes([i - 1]) + b"u"
        inner += b"q" + bytes([i])
    path = tmp_path / "weights"
    path.write_bytes(
        zip_file(mapping({"x": inner, "c": tensor("11", (), ())}), STORAGES)
    )
    assert len(list_contents(path).entries) == 3


def test_what_is_deep_is_not_listed(tmp_path):
    depth = 20_000
    deep = (b"}" + text("a")) * depth + b"N" + b"s" * depth
    path = tmp_path / "weights"
    path.write_bytes(zip_file(mapping({"w": tensor("7", (6,), (1,)), "d": deep})))
    found = list_contents(path)
    assert list(listed(found)) == ["w"]
    assert found.others == {".".join(["d"] + ["a"] * 31): "dict"}


def test_entries_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(contents, "MAX_ENTRIES", 3)
    path = tmp_path / "weights"
    path.write_bytes(zip_file(mapping({name: number(1) for name in "abcd"}), {}))
    with pytest.raises(UserError, match="more than 3 entries"):
        list_contents(path)


def test_a_tensor_outside_its_storage_is_refused(tmp_path):
    top = mapping({"optim": mapping({"a": tensor("7", (2**40,), (1,))})})
    path = tmp_path / "weights"
    path.write_bytes(zip_file(top, {"7": STORAGES["7"]}))
    with pytest.raises(UserError, match=r"tensor optim\.a reaches to element"):
        list_contents(path)


def test_safetensors_with_and_without_digests(tmp_path):
    tensors = {"a": np.ones((2, 3), np.float16)}
    write_safetensors(tmp_path / "ours", tensors, {})
    save_file(tensors, tmp_path / "theirs")
    ours, theirs = (list_contents(tmp_path / name) for name in ("ours", "theirs"))
    assert listed(ours) == listed(theirs) == {"a": ("float16", (2, 3))}
    assert (ours.verified, theirs.verified) == (True, False)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_numpys_archives(tmp_path, save):
    path = tmp_path / "weights.npz"
    save(path, w=np.ones((2, 3), np.float32), steps=np.array(3, np.int64))
    found = list_contents(path)
    assert listed(found) == {"w": ("float32", (2, 3)), "steps": ("int64", ())}
    np.save(tmp_path / "one.npy", np.ones(4))
    assert listed(list_contents(tmp_path / "one.npy")) == {"one": ("float64", (4,))}


def test_a_damaged_archive_of_numpy_is_refused(tmp_path):
    path = tmp_path / "weights.npz"
    np.savez(path, w=np.ones((2, 3), np.float32))
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"NUMPY", b"NUMBY"))
    with pytest.raises(UserError, match="weights.npz: damaged"):
        list_contents(path)
    at = whole.index(b"w.npy", whole.index(b"PK\1\2")) - 4  # of its place
    path.write_bytes(whole[:at] + b"\xff\xff\xff\x00" + whole[at + 4 :])
    with pytest.raises(UserError, match="weights.npz: damaged"):
        list_contents(path)
    path.write_bytes(whole[:-20])
    with pytest.raises(UserError, match="weights.npz: truncated"):
        list_contents(path)


def test_objects_in_numpys_archives_are_not_made(tmp_path):
    class Runs:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "mark"),)

    path = tmp_path / "weights.npz"
    np.savez(path, a=np.array([Runs()], object))
    assert listed(list_contents(path)) == {"a": ("object", (1,))}
    assert not (tmp_path / "mark").exists()


def test_orbax_of_another_program(tmp_path):
    tree = {"params": {"kernel": jnp.ones((3, 4))}, "opt": [{"mu": jnp.zeros(2)}]}
    with StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "flat" / "0", tree)
    ocp.save_checkpointables(tmp_path / "several", {"net": tree, "note": {"a": 1}})
    arrays = {"params.kernel": ("float32", (3, 4)), "opt.0.mu": ("float32", (2,))}
    assert listed(list_contents(tmp_path / "flat" / "0")) == arrays
    found = list_contents(tmp_path / "several")
    assert listed(found) == {f"net.{name}": value for name, value in arrays.items()}
    with pytest.raises(UserError, match="a folder of checkpoints; name one, such as"):
        list_contents(tmp_path / "flat")


def test_what_is_no_file_of_weights_is_one_line(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "link").symlink_to("/etc/passwd")
    (tmp_path / "empty").mkdir()
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps({"a": 1}))
    (tmp_path / "text").write_text("weights")
    os.mkfifo(tmp_path / "pipe")
    for name, words in {
        "folder": "is a link",
        "empty": "not an Orbax checkpoint",
        "plain.pkl": "torch.save did not write",
        "text": "neither a PyTorch nor",
        "pipe": "named pipe",
        "missing": "cannot be read",
    }.items():
        with pytest.raises(UserError, match=words) as error:
            list_contents(tmp_path / name)
        assert str(error.value).startswith(f"{tmp_path / name}: ")
