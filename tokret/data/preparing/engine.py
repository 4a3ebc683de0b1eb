"""Bringing photos into a dataset on disk: on all cores, restartable, in whole shards.

TFDS reads the result (`tfds.builder_from_directory`, array_record) but does not write
it: its own writer is a single thread that begins from the start after a kill. Here the
photos of a split are an ordered list, a shard is a fixed slice of it, and what is being
made lies in NAME/CONFIG/VERSION.partial until it is whole:

    lock       held by whoever prepares, and by its workers
    data/      finished shards; at the end it becomes NAME/CONFIG/VERSION
    journal/   a report beside each finished shard
    problems.csv, and what the dataset needs on the way, such as unpacked archives

CONFIG ends in a fingerprint of the sources and the options, so that what was begun from
others is never gone on with.
"""

import contextlib
import fcntl
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import tensorflow_datasets as tfds
from tqdm import tqdm

from tokret.data.preparing import problems
from tokret.data.preparing.layout import VERSION, Shard, describe, shards_of
from tokret.data.preparing.problems import Problem
from tokret.data.preparing.recipes import Plan, Recipe
from tokret.data.preparing.shards import ShardReport, ShardTask, WriteError, finished
from tokret.data.preparing.workers import write_shards
from tokret.errors import UserError

FEW = 256  # photos that are not worth the start of processes


def require_prepared(
    data_dir: Path, name: str, variant: str
) -> tfds.core.DatasetBuilder:
    """Returns a dataset that was prepared before, from sources that may be gone.

    Args:
      data_dir: where datasets lie.
      name: of the dataset.
      variant: as its recipe has it; "" stands for any.

    Raises:
      UserError: if there is none, or there are several, of other sources or options.
    """
    pattern = re.compile((re.escape(variant) or ".+") + "-[0-9a-f]{12}")
    found = [
        folder / VERSION
        for folder in sorted((data_dir / name).glob("*"))
        if pattern.fullmatch(folder.name) and (folder / VERSION).is_dir()
    ]
    if not found:
        raise UserError(
            f"{data_dir} holds no prepared {name} {variant}".rstrip()
            + "; name the folder of what was downloaded by data.manual_dir"
        )
    if len(found) > 1:
        raise UserError(
            f"{data_dir / name} holds {len(found)} that fit: "
            f"{', '.join(path.parent.name for path in found)}; name data.manual_dir, "
            "or remove all but one"
        )
    return tfds.builder_from_directory(found[0])


def prepare(
    recipe: Recipe,
    data_dir: str | os.PathLike[str],
    *,
    skip_bad: bool = False,
    workers: int = 0,
) -> tfds.core.DatasetBuilder:
    """Writes a dataset to disk, unless it is there.

    Args:
      recipe: what to write.
      data_dir: where datasets lie.
      skip_bad: leave out photos that are missing or broken, with a warning and a list
        of them in problems.csv beside the data.
      workers: processes; 0 stands for one a core. Changes no byte.

    Returns:
      The builder, to be read by `as_data_source`.

    Raises:
      UserError: if photos are missing or broken, or the disk is full. What is finished
        by then is kept, and the same call goes on from there.
    """
    final = Path(data_dir) / recipe.name / recipe.config() / VERSION
    partial = final.with_name(VERSION + ".partial")
    # Both are there after a kill between the last two steps.
    if partial.exists() or not final.exists():
        with _locked(recipe.name, partial) as lock:
            if not final.exists():
                _remove_unfinished(partial)  # of killed workers
                try:
                    _build(recipe, partial, final, skip_bad, workers, lock)
                except WriteError as error:
                    raise UserError(
                        f"{recipe.name}: the disk takes no more into {partial} "
                        f"({error}); what is finished is kept: make room and run the "
                        "same again"
                    ) from error
                finally:
                    _remove_unfinished(partial)
            shutil.rmtree(partial, ignore_errors=True)
    return tfds.builder_from_directory(final)


@contextlib.contextmanager
def _locked(name: str, partial: Path) -> Iterator[int]:
    """Waits until no other process prepares this dataset; yields the open lock."""
    partial.mkdir(parents=True, exist_ok=True)
    file = os.open(partial / "lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say(f"preparing {name}: waiting for another process that is at it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file
    finally:
        os.close(file)


def _remove_unfinished(partial: Path) -> None:
    for path in partial.glob("*/*.tmp"):
        path.unlink(missing_ok=True)


def _build(
    recipe: Recipe,
    partial: Path,
    final: Path,
    skip_bad: bool,
    workers: int,
    lock: int,
) -> None:
    for folder in ("data", "journal"):
        (partial / folder).mkdir(exist_ok=True)
    plan = recipe.plan(partial)
    if plan.missing and not skip_bad:
        raise _refusal(recipe, plan, plan.missing, "missing", partial)
    lengths = {split: len(photos) for split, photos in plan.splits.items()}
    total = sum(lengths.values())
    _say(f"preparing {recipe.name}: {total} photos into {final}")
    for note in plan.notes:
        _say(f"note: {recipe.name}: {note}")
    shards = shards_of(recipe.name, lengths, partial)
    reports = _write(recipe, plan, shards, workers, lock)
    broken = [problem for report in reports for problem in report.problems]
    if broken and not skip_bad:
        raise _refusal(recipe, plan, broken, "broken", partial)
    if len(broken) == total:
        raise UserError(f"{recipe.name}: no photo is left; look at the sources")
    bad = [*plan.missing, *broken]
    if bad:
        problems.write(partial / "data" / problems.FILE, bad)
        _say(
            f"warning: {recipe.name}: {len(bad):,} photos left out: "
            f"{problems.summary(bad)}; {final / problems.FILE} lists them"
        )
    describe(recipe, plan, shards, reports, partial / "data")
    os.rename(partial / "data", final)


def _refusal(
    recipe: Recipe, plan: Plan, bad: Sequence[Problem], word: str, partial: Path
) -> UserError:
    path = partial / problems.FILE
    problems.write(path, bad)
    total = sum(map(len, plan.splits.values())) + len(plan.missing)
    return UserError(
        f"{recipe.name}: {len(bad):,} of {total:,} photos are {word}: "
        f"{problems.summary(bad)}; {path} lists them; get them again, or leave them "
        "out with skip_bad"
    )


def _write(
    recipe: Recipe, plan: Plan, shards: Sequence[Shard], workers: int, lock: int
) -> list[ShardReport]:
    """Writes the shards that are not there yet; returns the reports of all."""

    def task(shard: Shard) -> ShardTask:
        return ShardTask(
            path=str(shard.path),
            journal=str(shard.journal),
            items=plan.splits[shard.split][shard.first : shard.last],
            treatment=recipe.treatment,
            features=plan.features,
        )

    reports = _reports_of_finished(shards, task)
    waiting = [shard for shard in shards if str(shard.path) not in reports]
    total = sum(shard.last - shard.first for shard in shards)
    left = sum(shard.last - shard.first for shard in waiting)
    count = _count_workers(workers, len(waiting), left)
    # disable=None: no bar where standard error is no terminal.
    with (
        tqdm(
            total=total,
            initial=total - left,
            desc=recipe.name,
            unit="photo",
            disable=None,
        ) as bar,
        contextlib.closing(
            write_shards(map(task, waiting), count, bar.update, (lock,))
        ) as written,
    ):
        for report in written:
            reports[report.path] = report
    return [reports[str(shard.path)] for shard in shards]


def _reports_of_finished(
    shards: Sequence[Shard], task: Callable[[Shard], ShardTask]
) -> dict[str, ShardReport]:
    reports = {}
    for shard in shards:
        if shard.path.exists() and (report := finished(task(shard))):
            reports[report.path] = report
    return reports


def _count_workers(wanted: int, shards: int, photos: int) -> int:
    if wanted == 0 and photos < FEW:
        return 1
    return max(1, min(wanted or count_cores(), shards))


def count_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201
