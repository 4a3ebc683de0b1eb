"""Which photo is in which split: by lists, by fraction, by class."""

import dataclasses
from pathlib import Path

import pytest

from tokret.config.datasets import ImageFolderConfig
from tokret.config.parsing import parse_data
from tokret.data.image_folder.photo_lists import Photo
from tokret.data.image_folder.splits import (
    choose_classes,
    held_out,
    read_list,
    split_photos,
)
from tokret.errors import UserError

NOTHING = ImageFolderConfig(name="image_folder", validation_fraction=0.0)
PHOTOS = [
    Photo(f"{label}/{i} ñ, 写.jpg", Path("/x"), label)
    for label in ("ash", "birch", "oak", "yew")
    for i in range(5)
]


def names(photos):
    return {photo.name for photo in photos}


@pytest.fixture
def write(tmp_path):
    def to(name, lines, end="\n"):
        path = tmp_path / name
        path.write_bytes("".join(line + end for line in lines).encode("utf-8-sig"))
        return str(path)

    return to


@pytest.mark.parametrize("count", [1, 2, 3, 10])
@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.2, 0.99])
def test_held_out_photos(count, fraction):
    chosen = held_out(count, fraction, 7)
    assert chosen <= set(range(count))
    assert len(chosen) < count
    if fraction == 0:
        assert not chosen
    elif count > 1:
        assert chosen
    assert chosen == held_out(count, fraction, 7)


def test_all_are_trained_on_by_default():
    splits = split_photos(PHOTOS, NOTHING)
    assert splits.train == PHOTOS and not splits.validation and not splits.benchmark


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("kind", ["txt", "csv"])
def test_lists(write, kind, end):
    def listed(name, photos):
        if kind == "txt":
            return write(f"{name}.txt", [photo.name for photo in photos], end)
        lines = [f'{photo.label},"./{photo.name}"' for photo in photos]
        return write(f"{name}.csv", ["label,path", *lines], end)

    held = [PHOTOS[0], PHOTOS[6]]
    lists = dataclasses.replace(NOTHING, validation_list=listed("v", held))
    splits = split_photos(PHOTOS, lists)
    assert splits.validation == held and len(splits.train) == 18

    chosen = PHOTOS[15:]
    lists = dataclasses.replace(lists, benchmark_list=listed("b", chosen))
    splits = split_photos(PHOTOS, lists)
    assert splits.benchmark == chosen and splits.classes() == ["ash", "birch", "oak"]

    # Of those that are trained on a fraction, and nothing of the others.
    trained = [*PHOTOS[1:4], *PHOTOS[8:10]]
    lists = dataclasses.replace(
        NOTHING, train_list=listed("t", trained), validation_fraction=0.2
    )
    splits = split_photos(PHOTOS, lists)
    assert names(splits.train) | names(splits.validation) == names(trained)
    assert len(splits.validation) == 2


def test_classes_for_the_benchmark(write):
    lists = dataclasses.replace(NOTHING, benchmark_classes=write("c", ["oak", "ash"]))
    splits = split_photos(PHOTOS, dataclasses.replace(lists, validation_fraction=0.2))
    assert {photo.label for photo in splits.benchmark} == {"ash", "oak"}
    assert {photo.label for photo in splits.train} == {"birch", "yew"}
    assert len(splits.validation) == 2
    # A list that names photos of all classes is as good.
    everything = write("t", [photo.name for photo in PHOTOS])
    again = split_photos(PHOTOS, dataclasses.replace(lists, train_list=everything))
    assert names(again.benchmark) == names(splits.benchmark)

    lists = dataclasses.replace(NOTHING, benchmark_fraction=0.5)
    splits = split_photos(PHOTOS, lists)
    assert len(splits.classes()) == 2 and len(splits.benchmark) == 10


def test_a_classs_part_changes_little():
    classes = {f"class {i}" for i in range(100)}
    chosen = choose_classes(classes, 0.2)
    assert len(chosen) == 20
    assert len(chosen & choose_classes(classes | {"another"}, 0.2)) >= 19
    assert len(choose_classes({"a", "b"}, 0.99)) == 1
    assert len(choose_classes({"a", "b"}, 0.01)) == 1
    assert not choose_classes({"a"}, 0.5)


def test_lists_that_do_not_fit(write, tmp_path):
    first, second = PHOTOS[0].name, PHOTOS[1].name
    for text, message in (
        (write("a", [first, first]), "a, line 2: .* is in line 1 too"),
        (write("b", [first, "ash/none.jpg"]), "b, line 2: there is no photo"),
        (write("c", []), "names no photo"),
        (str(tmp_path / "none"), "cannot be read"),
        (write("d.csv", ["x,y", "1,2"]), "no column 'path'"),
    ):
        with pytest.raises(UserError, match=message):
            read_list(text, names(PHOTOS), "photo", paths=True)
    both = write("e", [first]), write("f", [second, first])
    for fields, message in (
        (
            {"train_list": both[0], "validation_list": both[1]},
            "validation_list: .* is in train_list too",
        ),
        ({"benchmark_classes": write("g", ["elm"])}, "no class 'elm'"),
        (
            {"train_list": write("h", [PHOTOS[9].name]), "validation_list": both[0]},
            "no photo of its class ash",
        ),
        (
            {"validation_list": write("i", names(PHOTOS))},
            "no photo is left for training",
        ),
    ):
        with pytest.raises(UserError, match=message):
            split_photos(PHOTOS, dataclasses.replace(NOTHING, **fields))
    for fields, message in (
        ({"benchmark_fraction": 1.0}, "benchmark_fraction is 1.0"),
        ({"benchmark_fraction": 0.1, "benchmark_list": "x"}, "exclude each other"),
        ({"benchmark_root": "r", "benchmark_classes": "x"}, "exclude each other"),
    ):
        with pytest.raises(UserError, match=message):
            parse_data({"name": "image_folder", **fields})
