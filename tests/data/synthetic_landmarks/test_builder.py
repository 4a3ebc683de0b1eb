"""The builder: splits, ground truth, determinism, interruption, bad arguments."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from tokret.config.datasets import SyntheticLandmarksConfig
from tokret.data import datasets, ground_truth
from tokret.data.synthetic_landmarks import builder as synthetic_landmarks
from tokret.data.synthetic_landmarks import photo_series as series
from tokret.errors import UserError

FEW = {
    "landmarks": 3,
    "photos": 3,
    "validation_photos": 1,
    "benchmark_landmarks": 3,
    "queries_per_landmark": 2,
    "database_photos": 4,
    "distractors": 5,
    "longest_side": 64,
}
SPLITS = ("train", "validation", "query", "database")


def prepare(data_dir, workers=0, **fields):
    config = SyntheticLandmarksConfig(name="synthetic_landmarks", **fields)
    return synthetic_landmarks.prepare(config, data_dir, workers)


def records(builder, split):
    source = builder.as_data_source(
        split, decoders={"image": tfds.decode.SkipDecoding()}
    )
    return list(source)


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("few"), **FEW)


def test_splits_and_counts(builder):
    counts = {name: split.num_examples for name, split in builder.info.splits.items()}
    assert counts == {"train": 9, "validation": 3, "query": 6, "database": 17}
    assert builder.info.features["label"].num_classes == 3
    labels = [int(record["label"]) for record in records(builder, "train")]
    assert labels == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    for split in ("query", "database"):
        assert {int(record["label"]) for record in records(builder, split)} == {-1}


def test_records_are_in_the_order_of_the_lists(builder):
    truth = builder.info.metadata["ground_truth"]
    for split, names in (("query", "qimlist"), ("database", "imlist")):
        stored = [record["filename"].decode() for record in records(builder, split)]
        assert stored == truth[names]


def test_filenames_are_unique(builder):
    names = [
        record["filename"] for split in SPLITS for record in records(builder, split)
    ]
    assert len(set(names)) == len(names) == 35


def test_ground_truth_is_a_valid_benchmark(builder):
    mapping = builder.info.metadata["ground_truth"]
    truth = ground_truth.from_revisited(mapping, "synthetic")
    names = np.array(truth.images)
    for query in range(6):
        own = np.concatenate([truth.easy[query], truth.hard[query], truth.junk[query]])
        building = truth.queries[query].split("_query_")[0]
        expected = [name.startswith(building) for name in names]
        np.testing.assert_array_equal(np.sort(own), np.flatnonzero(expected))
        assert len(truth.easy[query]) and len(truth.hard[query])


def test_ground_truth_boxes_are_the_queries_boxes(builder):
    gnd = builder.info.metadata["ground_truth"]["gnd"]
    for entry, record in zip(gnd, records(builder, "query"), strict=True):
        np.testing.assert_allclose(entry["bbx"], record["bbox"], rtol=1e-6)


def test_portrait_and_landscape_both_occur(builder):
    shapes = [
        cv2.imdecode(np.frombuffer(record["image"], np.uint8), 1).shape[:2]
        for record in records(builder, "database")
    ]
    assert {max(shape) for shape in shapes} == {64}
    assert {height > width for height, width in shapes} == {True, False}


def test_photos_depend_neither_on_counts_nor_on_threads(builder, tmp_path):
    more = {**FEW, "landmarks": 2, "photos": 4, "database_photos": 2, "distractors": 7}
    other = prepare(tmp_path, workers=1, **more)
    same = 0
    for split in SPLITS:
        known = {r["filename"]: r["image"] for r in records(builder, split)}
        for record in records(other, split):
            if record["filename"] in known:
                assert record["image"] == known[record["filename"]]
                same += 1
    assert same == 6 + 2 + 6 + (3 * 2 + 5)


def test_another_seed_gives_other_photos(builder, tmp_path):
    other = prepare(tmp_path, **FEW, seed=1)
    pairs = zip(records(builder, "train"), records(other, "train"), strict=True)
    assert all(one["image"] != two["image"] for one, two in pairs)


def test_prepared_once_and_read_again(builder, monkeypatch):
    def refuse(task):
        raise AssertionError(f"rendered again: {task}")

    monkeypatch.setattr(synthetic_landmarks, "take_series", refuse)
    again = prepare(Path(builder.data_path).parents[2], **FEW)
    assert again.data_path == builder.data_path
    truth = builder.info.metadata["ground_truth"]
    assert again.info.metadata["ground_truth"] == truth
    assert len(records(again, "database")) == 17


def test_an_interrupted_preparation_is_started_again(builder, tmp_path, monkeypatch):
    taken = []

    def interrupted(task):
        taken.append(task)
        if task.series == series.DATABASE:
            raise KeyboardInterrupt
        return series.take_series(task)

    with monkeypatch.context() as patch:
        patch.setattr(synthetic_landmarks, "take_series", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(tmp_path, **FEW)
    assert not list(tmp_path.glob("*/*/*/dataset_info.json"))
    whole = prepare(tmp_path, **FEW)
    assert whole.info.metadata["ground_truth"] == builder.info.metadata["ground_truth"]
    assert len(records(whole, "database")) == 17


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("landmarks", 0),
        ("photos", -1),
        ("validation_photos", -1),
        ("benchmark_landmarks", 0),
        ("queries_per_landmark", 0),
        ("database_photos", 1),
        ("distractors", -1),
        ("longest_side", 31),
        ("seed", -1),
    ],
)
def test_bad_arguments_are_named(tmp_path, argument, value):
    with pytest.raises(UserError, match=rf"{argument} is {value}"):
        datasets.prepare(
            str(tmp_path), name="synthetic_landmarks", **{**FEW, argument: value}
        )
    assert not list(tmp_path.iterdir())


def test_without_validation_photos_there_is_no_such_split(tmp_path):
    none = {**FEW, "validation_photos": 0, "distractors": 0}
    assert set(prepare(tmp_path, **none).info.splits) == {
        "train",
        "query",
        "database",
    }
