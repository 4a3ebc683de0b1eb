"""One shard of a dataset: a file that exists whole or not at all, and its report.

A shard depends on its task alone, so it has the same bytes whichever process writes it
and however often that was interrupted.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter

# Not in TFDS's documented API: checked with 4.9.10 by tests/data/.../test_shards.py.
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from tokret.data.preparing.dataset_digests import digest_file
from tokret.data.preparing.photo_files import (
    BadPhotoError,
    PhotoLocation,
    PhotoReader,
)
from tokret.data.preparing.photo_processing import PhotoProcessing, process_photo
from tokret.data.preparing.problems import Problem
from tokret.errors import UserError
from tokret.io.json_files import read_json

# Each record by itself, for random access. Photos are compressed: compressing them
# again made writing 4 times and reading 3 times slower and saved nothing.
OPTIONS = "group_size:1,uncompressed"
MAX_REPORT = 2**28  # bytes of a shard's report


class SourcePhoto(NamedTuple):
    """A photo before it is read: the record's `filename` and other fields."""

    name: str
    location: PhotoLocation
    fields: dict[str, Any]


class ShardTask(NamedTuple):
    """Everything that decides a shard's bytes, its path and that of its report."""

    path: str
    journal: str
    photos: Sequence[SourcePhoto]
    processing: PhotoProcessing
    features: tfds.features.FeaturesDict

    def digest(self) -> str:
        """Identifies the shard's contents; another task has another digest."""
        content = repr((list(self.photos), self.processing, OPTIONS))
        return hashlib.sha256(content.encode("utf-8", "backslashreplace")).hexdigest()


class ShardReport(msgspec.Struct):
    """The result of writing a shard; stored as JSON beside it."""

    digest: str  # of its task
    records: int = 0  # number of records in the shard
    size: int = 0  # of the records, in bytes
    nbytes: int = 0  # of the shard's file, in bytes
    sha256: str = ""  # of the shard's file
    # rows of the task's photos that the shard does not contain
    skipped: list[int] = msgspec.field(default_factory=list)
    # for each of those, what is wrong
    problems: list[Problem] = msgspec.field(default_factory=list)


class WriteError(Exception):
    """A shard could not be written to disk; the message is the system's."""


def read_report(task: ShardTask) -> ShardReport | None:
    """Returns the report of a shard that was finished before, None if there is none.

    The report is written before the shard gets its name: whether there is a shard is
    for the caller to know.
    """
    path, remedy = Path(task.journal), "the shard is written again"
    try:
        report: ShardReport = read_json(path, ShardReport, remedy, MAX_REPORT)
    except UserError:
        return None
    return report if report.digest == task.digest() else None


def write_shard(
    task: ShardTask, progress: Callable[[int], object]
) -> tuple[str, ShardReport]:
    """Writes a shard and its report; returns its path and the report.

    `progress` is called with the number of photos that are done.

    Raises:
      WriteError: if the disk is full or fails; nothing of the shard is left then.
    """
    # Named by its process: what a killed process left is never continued.
    partial = f"{task.path}.{os.getpid()}.tmp"
    try:
        report = _write_records(task, partial, progress)
        report.nbytes, report.sha256 = digest_file(Path(partial))
        _sync(partial)
        _write_report(task.journal, report)
        os.replace(partial, task.path)
    except OSError as error:
        raise WriteError(error.strerror or str(error)) from error
    finally:
        Path(partial).unlink(missing_ok=True)
    return task.path, report


def _write_records(
    task: ShardTask, path: str, progress: Callable[[int], object]
) -> ShardReport:
    report = ShardReport(task.digest())
    serializer = ExampleSerializer(task.features.get_serialized_info())
    writer = _call(ArrayRecordWriter, path, OPTIONS)
    with PhotoReader() as reader:
        for row, photo in enumerate(task.photos):
            try:
                image = process_photo(reader.read(photo.location), task.processing)
            except BadPhotoError as bad:
                report.skipped.append(row)
                names = map(_escaped, (photo.name, photo.location.path, str(bad)))
                report.problems.append(Problem(*names))
            else:
                example = task.features.encode_example(
                    {"image": image, "filename": photo.name, **photo.fields}
                )
                # Without this each process would order the features differently.
                record = serializer.get_tf_example(example).SerializeToString(
                    deterministic=True
                )
                _call(writer.write, record)
                report.records += 1
                report.size += len(record)
            progress(1)
    _call(writer.close)
    return report


def _escaped(name: str) -> str:
    """Escapes what is not valid text, which neither JSON nor CSV in UTF-8 can store."""
    return name.encode("utf-8", "backslashreplace").decode()


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls the writer, which raises a RuntimeError when the disk fails."""
    try:
        return function(*arguments)
    except RuntimeError as error:
        words = str(error).partition("failed: ")[2] or str(error)
        raise WriteError(words.partition(";")[0]) from error


def _sync(path: str) -> None:
    """Waits for the disk: a shard that has its name survives a power cut."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _write_report(path: str, report: ShardReport) -> None:
    partial = f"{path}.{os.getpid()}.tmp"
    Path(partial).write_bytes(msgspec.json.encode(report))
    _sync(partial)
    os.replace(partial, path)
