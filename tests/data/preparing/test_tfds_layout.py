"""Prepared datasets that were damaged: one line, from whatever reads them."""

import json
import shutil
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokret.data import datasets
from tokret.data.preparing.dataset_digests import FILE, write_digests
from tokret.data.preparing.tfds_layout import open_dataset
from tokret.errors import UserError

FILES = ("dataset_info.json", "features.json", "label.labels.txt", "metadata.json")


@pytest.fixture(scope="module")
def prepared(photo_folder, tmp_path_factory):
    """A dataset of three classes, one of which is a benchmark."""
    dataset = datasets.prepare(
        str(tmp_path_factory.mktemp("prepared")),
        name="image_folder",
        root=str(photo_folder),
        benchmark_fraction=0.3,
    )
    return dataset.builder.data_path


@pytest.fixture
def folder(prepared, tmp_path):
    return shutil.copytree(prepared, tmp_path / "image_folder" / "photos-0" / "1.0.0")


def replaced(folder, name, content):
    shutil.copytree(folder, folder.parent / "2.0.0", dirs_exist_ok=True)
    (folder.parent / "2.0.0" / name).write_bytes(content)
    write_digests(folder.parent / "2.0.0", {})
    return folder.parent / "2.0.0"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", [b"", b"null", b"3", b'"x"', b"\xff", b"{"])
def test_damaged_files_are_one_line(folder, name, content):
    (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=r"damaged \(.*as it was.*\); remove this fold"):
        open_dataset(folder)
    write_digests(folder, {})
    with pytest.raises(UserError, match=r"damaged \(.*\); remove this folder"):
        open_dataset(folder)


@pytest.mark.parametrize("name", FILES[:3])
def test_missing_files_are_one_line(folder, name):
    (folder / name).unlink()
    with pytest.raises(UserError, match=r"damaged \(.*\); remove this folder"):
        open_dataset(folder)


def test_missing_shards_are_named(folder):
    for path in folder.glob("*-train.*"):
        path.unlink()
    with pytest.raises(UserError, match=r"lacks image_folder-train\.array_record-"):
        open_dataset(folder)
    assert "train" in open_dataset(folder, whole=False).info.splits


def swap(one, two):
    first = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(first)


def change_lengths(folder):
    path = folder / "dataset_info.json"
    tree = json.loads(path.read_text())
    (split,) = [split for split in tree["splits"] if split["name"] == "train"]
    split["shardLengths"] = [str(int(split["shardLengths"][0]) - 1)]
    path.write_text(json.dumps(tree))


def reverse_labels(folder):
    path = folder / "label.labels.txt"
    lines = path.read_text("utf-8").splitlines()
    path.write_text("\n".join(lines[::-1]) + "\n", "utf-8")


def change_metadata(folder):
    path = folder / "metadata.json"
    tree = json.loads(path.read_text())
    tree["leave_one_out"]["labels"][0] += 1
    path.write_text(json.dumps(tree))


def grow_shard(folder):
    with next(folder.glob("*-train.*")).open("ab") as file:
        file.write(bytes(9))


def swap_shards(folder):
    swap(next(folder.glob("*-train.*")), next(folder.glob("*-benchmark.*")))


def cut_digests(folder):
    lines = (folder / FILE).read_text().splitlines(keepends=True)
    (folder / FILE).write_text("".join(lines[:-2]))


CHANGES = {
    change_lengths: "dataset_info.json is not as it was written",
    reverse_labels: "label.labels.txt is not as it was written",
    change_metadata: "metadata.json is not as it was written",
    grow_shard: "bytes, not",
    swap_shards: "records, not|bytes, not",
    cut_digests: f"{FILE} has no digest of it",
    lambda folder: (folder / "other.json").write_text("{}"): "other.json was added",
    lambda folder: (folder / FILE).write_text("x"): f"{FILE} is malformed",
    lambda folder: (folder / FILE).unlink(): f"it has no {FILE}",
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_changed_is_refused(folder, change):
    open_dataset(folder)
    change(folder)
    with pytest.raises(UserError, match=f"{CHANGES[change]}.*; remove this folder"):
        open_dataset(folder)


def test_digests_are_those_of_sha256sum(folder):
    result = subprocess.run(["sha256sum", "-c", FILE], cwd=folder, capture_output=True)
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == len(list(folder.iterdir())) - 1


@settings(
    max_examples=40,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.data())
def test_nothing_but_a_user_error_is_raised(folder, data):
    name = data.draw(st.sampled_from(FILES))
    content = bytearray((folder / name).read_bytes())
    if data.draw(st.booleans()):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    elif name.endswith("json"):
        tree = json.loads(content)
        key = data.draw(st.sampled_from(sorted(tree)))
        values = st.none() | st.integers() | st.text() | st.lists(st.integers())
        tree[key] = data.draw(values)
        content = json.dumps(tree).encode()
    try:
        builder = open_dataset(replaced(folder, name, bytes(content)))
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert set(builder.info.splits) <= {"train", "validation", "benchmark"}
