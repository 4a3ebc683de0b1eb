"""Writes datasets to disk: on all cores, restartable, in whole shards.

TFDS reads the result (`tfds.builder_from_directory`, array_record) but does not write
it: its own writer is a single thread that starts again after a kill. Here the photos of
a split are an ordered list, a shard is a fixed slice of it, and an unfinished dataset
is stored in NAME/CONFIG/VERSION.partial:

    lock       locked by the process that prepares, and by its workers
    data/      finished shards; at the end it becomes NAME/CONFIG/VERSION
    journal/   a report for each finished shard
    problems.csv, and temporary files such as unpacked archives

CONFIG ends in a fingerprint of the sources and the options, so that a preparation is
never resumed with others. `destinations` has what is different in a bucket.
"""

import contextlib
import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path

import tensorflow_datasets as tfds

from tokret.data.preparing import problems
from tokret.data.preparing.csv_files import read_rows, write_rows
from tokret.data.preparing.dataset_specs import DatasetContents, DatasetSpec
from tokret.data.preparing.destinations import (
    Destination,
    destination,
    is_prepared,
    list_configs,
    log,
)
from tokret.data.preparing.problems import Problem
from tokret.data.preparing.shards import (
    ShardReport,
    ShardTask,
    WriteError,
    read_report,
    write_shard,
)
from tokret.data.preparing.source_files import FetchedFiles
from tokret.data.preparing.tfds_layout import (
    VERSION,
    Shard,
    list_shards,
    open_dataset,
    write_dataset_info,
)
from tokret.data.preparing.workers import count_cores, run
from tokret.errors import UserError
from tokret.io.remote.uploading import publish
from tokret.names import counted
from tokret.runtime.progress import Progress

FEW = 256  # photos; starting processes for them does not pay


def open_prepared(
    data_dir: str | os.PathLike[str],
    name: str,
    variant: str,
    argument: str = "manual_dir",
    content: str = "the folder of the downloaded files",
) -> tfds.core.DatasetBuilder:
    """Returns a dataset that was prepared before; its sources need not exist.

    The variant is that of its `DatasetSpec`; "" for any. Errors name the
    argument that is missing, and what its value would be.

    Raises:
      UserError: if there is none, or several, with other sources or options.
    """
    pattern = re.compile((re.escape(variant) or ".+") + "-[0-9a-f]{12}")
    parent = Path(data_dir) / name
    found = [
        parent / config / VERSION
        for config in list_configs(parent)
        if pattern.fullmatch(config) and is_prepared(parent / config / VERSION)
    ]
    if not found:
        raise UserError(
            f"{argument}: {data_dir} contains no prepared {name} {variant}".rstrip()
            + f"; set it to {content}"
        )
    if len(found) > 1:
        raise UserError(
            f"{argument}: {parent} contains {len(found)} that match: "
            f"{', '.join(path.parent.name for path in found)}; set it, or remove all "
            "but one"
        )
    return _opened(name, found[0])


def prepare_dataset(
    spec: DatasetSpec,
    data_dir: str | os.PathLike[str],
    *,
    skip_bad: bool = False,
    workers: int = 0,
) -> tfds.core.DatasetBuilder:
    """Writes a dataset to disk, unless it exists.

    Args:
      spec: of the dataset.
      data_dir: the folder of prepared datasets.
      skip_bad: skip photos that are missing or broken, with a warning, and list them in
        problems.csv beside the data.
      workers: processes; 0 for one per core. Changes no byte.

    Returns:
      The builder, to be read by `as_data_source`.

    Raises:
      UserError: if photos are missing or broken, or the disk is full. Finished shards
        are kept, and the same call resumes from there.
    """
    final = Path(data_dir) / spec.name / spec.config_name() / VERSION
    place = destination(final)
    for note in spec.notes:
        log(f"note: {spec.name}: {note}")
    if not place.is_clean():
        with place.locked(spec.name) as locks:
            if not is_prepared(final):
                place.start()
                try:
                    _Writer(spec, place, skip_bad, workers, locks).write()
                except WriteError as error:
                    raise UserError(
                        f"{spec.name}: {place.partial} cannot be written ({error}); "
                        "what is finished is kept: free some space and run the same "
                        "again"
                    ) from error
                finally:
                    place.close()
            place.clear()
    return _opened(spec.name, final)


def _opened(name: str, folder: Path) -> tfds.core.DatasetBuilder:
    """Opens a dataset; warns of photos that it lacks, whenever it was prepared."""
    builder = open_dataset(folder)
    path = folder / problems.FILE
    if path.exists():
        bad = [Problem(*values) for _, values in read_rows(path, Problem._fields)]
        log(
            f"warning: {name}: {counted(len(bad), 'photo')} skipped: "
            f"{problems.summary(bad)}; {path} lists them"
        )
    return builder


@dataclasses.dataclass
class _Writer:
    """Writes one dataset; workers keep the files `locks` open."""

    spec: DatasetSpec
    place: Destination
    skip_bad: bool
    workers: int
    locks: tuple[int, ...]

    def write(self) -> None:
        name, partial = self.spec.name, self.place.partial
        contents = self.spec.read_contents(partial)
        lengths = {split: len(photos) for split, photos in contents.splits.items()}
        total = sum(lengths.values())
        everything = total + len(contents.missing)
        self._reject(contents.missing, "are missing", everything)
        log(f"preparing {name}: {counted(total, 'photo')} into {self.place.final}")
        for note in contents.notes:
            log(f"note: {name}: {note}")
        shards = list_shards(name, lengths, partial)
        reports = self._write_shards(contents, shards)
        broken = [problem for report in reports for problem in report.problems]
        self._reject(broken, "cannot be used", everything)
        if len(broken) == total:
            raise UserError(f"{name}: no photo can be used; check the sources")
        bad = [*contents.missing, *broken]
        if bad:
            write_rows(self.place.data / problems.FILE, Problem._fields, bad)
        write_dataset_info(self.spec, contents, shards, reports, self.place.data)
        self.place.complete()

    def _reject(self, bad: Sequence[Problem], what: str, total: int) -> None:
        if not bad or self.skip_bad:
            return
        path = self.place.partial / problems.FILE
        write_rows(path, Problem._fields, bad)
        publish(path)
        raise UserError(
            f"{self.spec.name}: {len(bad):,} of {total:,} photos {what}: "
            f"{problems.summary(bad)}"
            + (f"; {path} lists all" if len(bad) > problems.FIRST else "")
            + "; replace them, or set skip_bad"
        )

    def _write_shards(
        self, contents: DatasetContents, shards: Sequence[Shard]
    ) -> list[ShardReport]:
        """Writes the shards that are not finished; returns the reports of all."""

        def task(shard: Shard) -> ShardTask:
            return ShardTask(
                path=str(shard.path),
                journal=str(shard.journal),
                photos=contents.splits[shard.split][shard.first : shard.last],
                processing=self.spec.processing,
                features=contents.features,
            )

        finished = self.place.finished()
        reports = {
            shard: report
            for shard in shards
            if shard.path.name in finished and (report := read_report(task(shard)))
        }
        unfinished = {str(s.path): s for s in shards if s not in reports}
        left = sum(shard.last - shard.first for shard in unfinished.values())
        workers = self.workers or (1 if left < FEW else count_cores())
        workers = max(1, min(workers, len(unfinished)))
        total = sum(shard.last - shard.first for shard in shards)
        needs = {path: _needs(contents, shard) for path, shard in unfinished.items()}
        with (
            contextlib.closing(FetchedFiles(contents.fetched, needs)) as files,
            Progress(self.spec.name, total, done=total - left) as bar,
        ):
            tasks = self.place.limited(
                (task(unfinished[path]) for path in files.before()), workers
            )

            def stop() -> None:
                files.stop()
                self.place.stop()

            written = run(write_shard, tasks, workers, bar.update, self.locks, stop)
            with contextlib.closing(written):
                for path, report in written:
                    shard = unfinished[path]
                    reports[shard] = report
                    files.done(path)
                    self.place.put(shard.path, shard.journal)
            self.place.wait()
        return [reports[shard] for shard in shards]


def _needs(contents: DatasetContents, shard: Shard) -> set[str]:
    """The files that are fetched before a shard can be written."""
    if not contents.fetched:
        return set()
    photos = contents.splits[shard.split][shard.first : shard.last]
    return {photo.location.path for photo in photos} & contents.fetched.keys()
