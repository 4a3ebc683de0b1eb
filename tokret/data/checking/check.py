"""Checks a dataset's downloaded files, or what was prepared from them."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from tokret.arguments import within
from tokret.config.parsing import parse_data
from tokret.data.checking import downloads
from tokret.data.checking.photo_checks import Defect, PhotoToCheck, check_photos
from tokret.data.checking.report import CheckReport, Digests, format_table
from tokret.data.datasets import Dataset
from tokret.data.decoding import MAX_PIXELS
from tokret.data.preparing.csv_files import write_rows
from tokret.data.preparing.dataset_digests import read_digests, verify_file
from tokret.data.preparing.tfds_layout import open_dataset, shard_sizes
from tokret.data.preparing.workers import count_cores
from tokret.data.records import BadRecordError, read_record
from tokret.errors import UserError
from tokret.io.remote.objects import list_objects
from tokret.io.remote.outputs import prepare_file
from tokret.io.remote.retrying import UnavailableError
from tokret.io.remote.uploading import publish
from tokret.io.remote.urls import url_of
from tokret.names import one_line
from tokret.runtime.progress import progress_bar

CACHE_GIB = 4.0  # GiB of shards from a bucket that are on the disk
# By dataset, what lists its downloaded photos; others are checked when prepared only.
DOWNLOADS: dict[str, Callable[..., Iterator[PhotoToCheck]]] = {
    "gldv2": downloads.gldv2,
    "image_folder": downloads.image_folder,
    "revisitop1m": downloads.revisitop1m,
    **{
        name: downloads.oxford_or_paris
        for name in ("oxford5k", "paris6k", "roxford5k", "rparis6k")
    },
}
ROOTS = ("manual_dir", "root", "table")  # fields that name the downloaded files
# Fields that decide what is checked.
FIELDS = (*ROOTS, "subset", "exclude_ids", "release", "max_pixels")


def check(
    name: str,
    data_dir: Path,
    output: Path | None,
    *,
    smallest: int,
    workers: int,
    fields: dict[str, Any],
) -> tuple[str, bool]:
    """Checks a dataset; writes nothing but the CSV, if one is named.

    Args:
      name: of the dataset.
      data_dir: the folder of prepared datasets; checked if no field names downloads.
      output: the CSV of all defects; None writes none.
      smallest: the shorter side in pixels below which a photo is tiny.
      workers: processes; 0 for one per core.
      fields: of the dataset's config, in `FIELDS`.

    Returns:
      Notes and a table as text, and whether there are no defects.

    Raises:
      UserError: if there is nothing to check, or the CSV cannot be written.
    """
    prepare_file(output, "output")
    report = CheckReport()
    if any(fields.get(field) for field in ROOTS):
        photos = DOWNLOADS[name](parse_data({"name": name, **fields}), report)
    else:
        photos = list_prepared_photos(data_dir, name, report)
    digests, checked = Digests(), 0
    workers = within("workers", workers, 0) or count_cores()
    with progress_bar(desc=name, unit="photo") as bar:
        most = fields.get("max_pixels", MAX_PIXELS)
        for photo in check_photos(photos, smallest, most, workers, bar.update):
            checked += 1
            is_empty = photo.defect is not None and photo.defect.problem == "empty"
            if photo.defect:
                report.defects.append(photo.defect)
            # Empty files are all the same.
            if photo.digest and not is_empty:
                digests.add(photo.name, photo.digest)
    defects = [*report.defects, *digests.duplicates()]
    defects.sort(key=lambda defect: (defect.problem, defect.name))
    lines = [f"note: {note}" for note in report.notes]
    lines.append(format_table(report.counts, defects, checked))
    if output:
        write_rows(output.resolve(), Defect._fields, defects)
        publish(output)
        lines.append(f"\nwritten: {output}")
    return "\n".join(lines), not defects


def find_prepared(data_dir: Path, name: str) -> list[Path]:
    """Lists the prepared datasets of a name, with any options.

    Raises:
      UserError: if there is none.
    """
    info, url = "dataset_info.json", url_of(data_dir / name)
    if url:
        paths = [data_dir / name / file for file in list_objects(url)]
        found = [path.parent for path in paths if path.name == info]
    else:
        found = [path.parent for path in data_dir.glob(f"{name}/**/{info}")]
    complete = [path for path in sorted(found) if not path.name.endswith(".partial")]
    if not complete:
        raise UserError(
            f"data_dir: {data_dir} contains no prepared {name}; name the downloaded "
            "files to check, as for prepare, or another data_dir"
        )
    return complete


def list_prepared_photos(
    data_dir: Path, name: str, report: CheckReport
) -> Iterator[PhotoToCheck]:
    """Yields the photos of all prepared datasets of a name, as they were stored."""
    for folder in find_prepared(data_dir, name):
        try:
            builder = open_dataset(folder, whole=False)
        except UserError as error:
            name = folder.relative_to(data_dir).as_posix()
            report.add_defect(name, "unreadable", str(error))
            continue
        sizes = shard_sizes(folder)
        if url_of(folder):  # what the bucket has is checked
            for path in folder.glob("*.array_record*"):
                path.unlink()
        for split, info in builder.info.splits.items():
            label = f"{folder.relative_to(data_dir / name).as_posix()}, {split}"
            missing = [p for p in info.filepaths if Path(p).name not in sizes]
            total = len(info.filepaths)
            report.add_count(f"files of {label}", total - len(missing), total)
            if missing:
                for path in sorted(missing):
                    report.add_defect(Path(path).name, "missing", f"in {folder}")
                continue
            report.add_count(f"photos of {label}", info.num_examples)
            yield from _list_split(builder, split, label, report)


def _list_split(
    builder: tfds.core.DatasetBuilder, split: str, label: str, report: CheckReport
) -> Iterator[PhotoToCheck]:
    """Yields a split's photos; verifies each shard before its first."""
    folder, info = Path(builder.data_path), builder.info.splits[split]
    digests, rows = read_digests(folder), iter(range(info.num_examples))
    source = Dataset(name=builder.name, builder=builder, cache_gib=CACHE_GIB)
    records = source.records(split)
    for path, length in zip(map(Path, info.filepaths), info.shard_lengths, strict=True):
        mine = list(itertools.islice(rows, length))
        try:
            if source.remote_shards is None:
                verify_file(path, digests)
            else:
                source.remote_shards.fetch(path.name)
        except UnavailableError:
            raise
        except (OSError, ValueError, UserError) as error:
            report.add_defect(f"{label}/{path.name}", "changed", one_line(error))
            if source.remote_shards is not None:
                continue  # it cannot be read
        for row in mine:
            try:
                record = read_record(records, row)
            except BadRecordError as error:
                report.add_defect(f"{label}/{row}", "unreadable", str(error))
            else:
                photo = f"{label}/{record['filename'].decode()}"
                yield PhotoToCheck(photo, record["image"], str(folder))
