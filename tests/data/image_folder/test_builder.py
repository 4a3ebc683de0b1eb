import csv
import io
import os
import shutil

import pytest
from PIL import Image

from tokret.data import datasets
from tokret.errors import UserError


def prepare(data_dir, root, **options):
    return datasets.prepare(
        str(data_dir), name="image_folder", root=str(root), **options
    )


def names(dataset, split):
    return [record["filename"].decode() for record in dataset.records(split)]


def test_classes_and_splits(photo_folder, tmp_path):
    dataset = prepare(tmp_path, photo_folder, validation_fraction=0.34)
    assert dataset.classes == 3 and dataset.ground_truth is None
    train, held_out = names(dataset, "train"), names(dataset, "validation")
    assert len(train) == 12 and len(held_out) == 6
    assert not set(train) & set(held_out)
    assert "café au lait/photo 0.jpg" in train + held_out
    for record in dataset.records("train"):
        folder = sorted(os.listdir(photo_folder))[record["label"]]
        assert record["filename"].decode().startswith(folder)
        stored = (photo_folder / record["filename"].decode()).read_bytes()
        assert record["image"] == stored


def test_every_photo_in_one_split_and_no_other(photo_folder, tmp_path):
    dataset = prepare(tmp_path, photo_folder, validation_fraction=0.0)
    assert len(names(dataset, "train")) == 18
    with pytest.raises(UserError, match="no split 'validation'"):
        dataset.records("validation")


def test_a_folder_of_its_own_to_find_photos_in(photo_folder, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(photo_folder / "ash", other / "alder")
    shutil.copytree(photo_folder / "birch", other / "birch")
    dataset = prepare(tmp_path / "d", photo_folder, benchmark_root=str(other))
    assert dataset.classes == 3
    assert len(names(dataset, "train")) + len(names(dataset, "validation")) == 18
    assert {name.split("/")[0] for name in names(dataset, "benchmark")} == {
        "alder",
        "birch",
    }
    truth = dataset.leave_one_out
    assert truth is not None and len(truth["labels"]) == 12
    (other / "alder" / "photo 0.jpg").unlink()
    again = prepare(tmp_path / "d", photo_folder, benchmark_root=str(other))
    assert again.builder.data_path != dataset.builder.data_path
    assert len(names(again, "benchmark")) == 11
    alone = tmp_path / "alone"
    for name in ("ash", "birch"):
        (alone / name).mkdir(parents=True)
        shutil.copy(photo_folder / name / "photo 1.jpg", alone / name)
    links = tmp_path / "links"
    links.mkdir()
    (links / "ash").symlink_to(photo_folder / "ash")
    for root, message in (
        (tmp_path / "none", "is not a folder"),
        (other / "birch", "has no class folder"),
        (photo_folder, "is trained on too"),
        (links, "is trained on too"),
        (alone, "has two photos"),
    ):
        with pytest.raises(UserError, match=f"benchmark_root: .* {message}"):
            prepare(tmp_path / "d", photo_folder, benchmark_root=str(root))


def test_prepared_before_and_the_photos_elsewhere(photo_folder, tmp_path, capsys):
    first = prepare(tmp_path / "d", photo_folder, benchmark_fraction=0.34)
    capsys.readouterr()
    again = prepare(tmp_path / "d", "")
    assert again.builder.data_path == first.builder.data_path
    assert names(again, "benchmark") == names(first, "benchmark")
    assert f"{first.builder.data_path} was prepared before" in capsys.readouterr().err
    prepare(tmp_path / "d", photo_folder)
    with pytest.raises(UserError, match="root: .* contains 2 that match: "):
        prepare(tmp_path / "d", "")


def test_a_changed_folder_is_prepared_again(photo_folder, tmp_path):
    root = tmp_path / "photos"
    shutil.copytree(photo_folder, root)
    before = prepare(tmp_path / "d", root).builder.data_path
    assert prepare(tmp_path / "d", root).builder.data_path == before
    shutil.copy(root / "ash" / "photo 0.jpg", root / "ash" / "another.JPG")
    after = prepare(tmp_path / "d", root)
    assert after.builder.data_path != before
    total = len(names(after, "train")) + len(names(after, "validation"))
    assert total == 19


def test_a_broken_photo_is_named_and_nothing_is_left(photo_folder, tmp_path):
    root = tmp_path / "photos"
    shutil.copytree(photo_folder, root)
    (root / "birch" / "page.jpg").write_bytes(b"<html>")
    with pytest.raises(UserError, match=r"birch/page\.jpg"):
        prepare(tmp_path / "d", root)
    (root / "birch" / "page.jpg").unlink()
    assert prepare(tmp_path / "d", root).classes == 3


def test_broken_photos_can_be_skipped_and_large_ones_shrunk(
    photo_folder, tmp_path, capsys
):
    root = tmp_path / "photos"
    shutil.copytree(photo_folder, root)
    odd = root / "birch" / 'une "page", 写真.jpg'
    odd.write_bytes(b"<html>")
    dataset = prepare(tmp_path / "d", root, skip_bad=True, resize=20, quality=60)
    assert len(names(dataset, "train")) + len(names(dataset, "validation")) == 18
    assert "1 photo skipped" in capsys.readouterr().err
    prepare(tmp_path / "d", root, resize=20, quality=60)  # reads the same one again
    assert "warning: image_folder: 1 photo skipped: " in capsys.readouterr().err
    with (dataset.builder.data_path / "problems.csv").open(encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert row["photo"] == odd.relative_to(root).as_posix()
    assert row["place"] == str(odd) and row["problem"] == "a web page, not a photo"
    for record in dataset.records("train"):
        assert min(Image.open(io.BytesIO(record["image"])).size) == 20


def test_folders_that_cannot_be(tmp_path):
    (tmp_path / "empty").mkdir()
    for root, message in (
        ("", "root: .* contains no prepared image_folder; set it to a folder"),
        (tmp_path / "none", "not a folder"),
        (tmp_path, "no class folder"),
    ):
        with pytest.raises(UserError, match=message):
            prepare(tmp_path / "d", root)
    with pytest.raises(UserError, match="validation_fraction"):
        prepare(tmp_path / "d", tmp_path, validation_fraction=1.0)
