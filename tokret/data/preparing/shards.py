"""One shard of a dataset: a file that is there whole or not at all, and its report.

A shard is decided by its task alone, so it has the same bytes whichever process writes
it and however often that was interrupted.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from tokret.data.preparing.photos import BadPhoto, Place, Reader, Treatment, treat
from tokret.data.preparing.problems import Problem

# Each record by itself, for random access. Photos are compressed: compressing them
# again made writing 4 times and reading 3 times slower and saved nothing.
OPTIONS = "group_size:1,uncompressed"


class Item(NamedTuple):
    """A photo of a dataset before it is read.

    Attributes:
      name: what the record's `filename` holds.
      place: where its bytes lie.
      fields: the record's other features.
    """

    name: str
    place: Place
    fields: dict[str, Any]


class ShardTask(NamedTuple):
    """All that decides a shard's bytes.

    Attributes:
      path: where the shard goes.
      journal: where its report goes.
      items: its photos, in order.
      treatment: what is done to each.
      features: of the dataset.
    """

    path: str
    journal: str
    items: Sequence[Item]
    treatment: Treatment
    features: tfds.features.FeaturesDict

    def digest(self) -> str:
        """Names what the shard is made of; another task has another digest."""
        content = repr((list(self.items), self.treatment, OPTIONS))
        return hashlib.sha256(content.encode("utf-8", "backslashreplace")).hexdigest()


class ShardReport(NamedTuple):
    """What became of a shard.

    Attributes:
      path: the shard.
      digest: of its task.
      records: it holds.
      size: of the records, in bytes.
      left_out: positions among the task's items that it does not hold.
      problems: for each of those, what is wrong.
    """

    path: str
    digest: str
    records: int
    size: int
    left_out: list[int]
    problems: list[Problem]


class WriteError(Exception):
    """The disk did not take a shard; the message is the system's."""


def finished(task: ShardTask) -> ShardReport | None:
    """Returns the report of a shard that is there already, None if it is to be made."""
    try:
        fields = json.loads(Path(task.journal).read_text("utf-8"))
        problems = [Problem(*problem) for problem in fields.pop("problems")]
        report = ShardReport(path=task.path, problems=problems, **fields)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    # The report is written before the shard takes its name.
    if report.digest != task.digest() or not os.path.isfile(task.path):
        return None
    return report


def write_shard(task: ShardTask, progress: Callable[[int], object]) -> ShardReport:
    """Writes a shard and its report.

    Args:
      task: what to write.
      progress: is told of photos that are done.

    Raises:
      WriteError: if the disk takes no more; nothing of the shard is left then.
    """
    # Of its own process: one that another, killed, left behind is never gone on with.
    partial = f"{task.path}.{os.getpid()}.tmp"
    try:
        report = _write_records(task, partial, progress)
        _sync(partial)
        _write_journal(task.journal, report)
        os.replace(partial, task.path)
    except OSError as error:
        raise WriteError(error.strerror or str(error)) from error
    finally:
        if os.path.exists(partial):
            os.unlink(partial)
    return report


def _write_records(
    task: ShardTask, path: str, progress: Callable[[int], object]
) -> ShardReport:
    report = ShardReport(task.path, task.digest(), 0, 0, [], [])
    records = size = 0
    serializer = ExampleSerializer(task.features.get_serialized_info())
    writer = _checked(ArrayRecordWriter, path, OPTIONS)
    with Reader() as reader:
        for position, item in enumerate(task.items):
            try:
                image = treat(reader.read(item.place), task.treatment)
            except BadPhoto as bad:
                report.left_out.append(position)
                problem = Problem(item.name, item.place.path, str(bad))
                report.problems.append(problem)
            else:
                example = task.features.encode_example(
                    {"image": image, "filename": item.name, **item.fields}
                )
                # Otherwise each process has an order of the features of its own.
                record = serializer.get_tf_example(example).SerializeToString(
                    deterministic=True
                )
                _checked(writer.write, record)
                records, size = records + 1, size + len(record)
            progress(1)
    _checked(writer.close)
    return report._replace(records=records, size=size)


def _checked(call: Callable[..., Any], *arguments: Any) -> Any:
    """Calls the writer, whose refusals by the disk are RuntimeErrors that quote it."""
    try:
        return call(*arguments)
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


def _write_journal(path: str, report: ShardReport) -> None:
    fields = report._asdict()
    del fields["path"]
    partial = f"{path}.{os.getpid()}.tmp"
    # Escaped throughout: names that are no valid text pass through as they are.
    Path(partial).write_text(json.dumps(fields), "ascii")
    _sync(partial)
    os.replace(partial, path)
