"""Shards: the serialiser, which is not in TFDS's documented API, and the reports."""

import os

import tensorflow_datasets as tfds

from tokret.data.preparing.dataset_specs import photo_features
from tokret.data.preparing.photo_files import PhotoLocation
from tokret.data.preparing.photo_processing import PhotoProcessing
from tokret.data.preparing.shards import (
    ExampleSerializer,
    ShardTask,
    SourcePhoto,
    read_report,
    write_shard,
)


def test_tfds_reads_what_its_undocumented_serialiser_writes(jpeg):
    """Checked with TFDS 4.9.10; this fails where a later one has changed it."""
    features = photo_features(["ash", "birch"])
    serializer = ExampleSerializer(features.get_serialized_info())
    record = {"image": jpeg(0), "label": "birch", "filename": "a.jpg"}
    example = features.encode_example(record)
    stored = serializer.get_tf_example(example).SerializeToString(deterministic=True)
    read = features.deserialize_example_np(
        stored, decoders={"image": tfds.decode.SkipDecoding()}
    )
    assert (read["image"], read["label"]) == (jpeg(0), 1)
    assert read["filename"] == b"a.jpg"


def test_a_report_is_read_again_with_names_that_are_not_text(tmp_path):
    name = os.fsdecode(b"\xff.jpg")
    photo = SourcePhoto(name, PhotoLocation(str(tmp_path / name)), {})
    task = ShardTask(
        *(str(tmp_path / "shard"), str(tmp_path / "report.json")),
        *([photo], PhotoProcessing(), photo_features()),
    )
    path, report = write_shard(task, lambda _: None)
    assert path == task.path and report.skipped == [0] and report.records == 0
    assert report.problems[0].photo == r"\udcff.jpg"
    assert read_report(task) == report
    assert read_report(task._replace(photos=[])) is None
