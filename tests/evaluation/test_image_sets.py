"""The images of a dataset, by its kind of ground truth."""

import types
from unittest import mock

import numpy as np
import pytest

from tokret.data.datasets import Dataset
from tokret.errors import UserError
from tokret.evaluation.image_sets import DescriptorSet, image_sets
from tokret.evaluation.leave_one_out_benchmark import LeaveOneOutBenchmark

GND = [
    {"bbx": [0, 0, 9, 9], "easy": [0], "hard": [], "junk": []},
    {"bbx": [1, 2, 3, 4], "easy": [1], "hard": [], "junk": []},
]
TRUTH = {"imlist": ["x", "y", "z"], "qimlist": ["a", "b"], "gnd": GND}


def records_of(names):
    return [
        {"image": b"photo", "label": label, "filename": name.encode()}
        for label, name in enumerate(names)
    ]


@pytest.fixture
def dataset():
    """Returns a function that makes a dataset of splits."""

    def make(splits, ground_truth=None, leave_one_out=None):
        made = mock.Mock(spec=Dataset)
        made.name, made.class_names = "small", ("u", "v", "w")
        made.ground_truth, made.leave_one_out = ground_truth, leave_one_out
        made.records = lambda split: records_of(splits[split])
        info = types.SimpleNamespace(splits=splits)
        config = types.SimpleNamespace(description="a folder")
        made.builder = types.SimpleNamespace(info=info, builder_config=config)
        return made

    return make


def names_of(sets):
    return {name: [view.name for view in views] for name, views in sets.items()}


def test_queries_are_cropped_to_their_boxes(dataset):
    splits = {"query": ["a", "b"], "database": ["x", "y", "z"]}
    sets = image_sets(dataset(splits, TRUTH), "", 64)
    assert names_of(sets) == splits
    assert [view.box for view in sets["query"]] == [(0, 0, 9, 9), (1, 2, 3, 4)]
    assert sets["database"][0].box is None and sets["database"][0].longest_side == 64


def test_labelled_photos_with_boxes_are_queries_too(dataset):
    boxes = [None, [0, 0, 5, 5], None]
    truth = {"labels": [1, 0, 1], "boxes": boxes, "classes": ["k", "l"]}
    made = dataset({"benchmark": ["x", "y", "z"]}, leave_one_out=truth)
    sets = image_sets(made, "benchmark", 64)
    assert names_of(sets) == {"query": ["y"], "database": ["x", "y", "z"]}
    assert sets["query"][0].box == (0, 0, 5, 5)
    benchmark = LeaveOneOutBenchmark.of(made, "benchmark", sets)
    assert isinstance(benchmark, LeaveOneOutBenchmark)
    assert (benchmark.labels, benchmark.boxed) == ([1, 0, 1], [1])


def test_labels_of_a_folder_are_its_records(dataset):
    made = dataset({"train": ["x", "y"]})
    sets = image_sets(made, "train", 64)
    assert names_of(sets) == {"database": ["x", "y"]}
    with pytest.raises(UserError, match="no class of a folder has two photos"):
        LeaveOneOutBenchmark.of(made, "train", sets)


def test_a_single_class_measures_nothing(dataset):
    truth = {"labels": [0, 0], "boxes": [None, None], "classes": ["k"]}
    made = dataset({"benchmark": ["x", "y"]}, leave_one_out=truth)
    sets = image_sets(made, "benchmark", 64)
    with pytest.raises(UserError, match="^all photos of a folder are of one class"):
        LeaveOneOutBenchmark.of(made, "benchmark", sets)


def test_without_a_ground_truth_every_split_is_a_set(dataset):
    splits = {"train": ["x"], "validation": ["y", "z"]}
    assert names_of(image_sets(dataset(splits), "", 64)) == splits


def test_bad_images_are_reported_with_their_first_reasons():
    bad = {row: f"{row} is cut short" for row in range(7)}
    found = DescriptorSet(tuple("abcdefgh"), np.zeros((8, 2), np.float32), bad)
    lines = list(found.report_bad("query"))
    assert lines[0] == "7 bad photos of the query:" and len(lines) == 7
    assert lines[1] == "  a: 0 is cut short" and lines[-1] == "  and 2 more"
    assert found.good_rows(skip_bad=True) == [7]
    good = DescriptorSet(("a",), np.zeros((1, 2), np.float32), {})
    assert list(good.report_bad("query")) == []
