"""A dataset's folder as TFDS reads it: shards, their names, and the files beside."""

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader

from tokret.data.preparing.dataset_digests import (
    REMEDY,
    FileDigest,
    check_size,
    read_digests,
    verify_file,
    write_digests,
)
from tokret.data.preparing.dataset_specs import DatasetContents, DatasetSpec
from tokret.data.preparing.shards import ShardReport
from tokret.errors import UserError
from tokret.io.regular_files import open_file
from tokret.io.remote.fetching import fetch
from tokret.io.remote.objects import list_objects
from tokret.io.remote.retrying import UnavailableError
from tokret.io.remote.urls import is_safe_name, url_of
from tokret.names import first_names, one_line

VERSION = "1.1.0"  # another one for files that another version cannot read
PHOTOS_PER_SHARD = 512  # at least, where there are more
MAX_SHARDS = 256  # of a split: a reader keeps all of them open


def open_dataset(folder: Path, whole: bool = True) -> tfds.core.DatasetBuilder:
    """Opens a prepared dataset, NAME/CONFIG/VERSION, and verifies its files.

    All but the shards are compared with their digests. Of the shards, which may be
    large, only the sizes and the numbers of records are, and only of a `whole` dataset.
    Of a dataset in a bucket all files but the shards are fetched.

    Raises:
      UserError: if a file is damaged, other than it was written or, of a `whole`
        dataset, missing.
      StorageError, UnavailableError: if the bucket cannot be read.
    """
    fetch(folder, lambda name: not _is_shard(name))
    digests = read_digests(folder)
    try:
        _verify_beside(folder, digests)
        builder = tfds.builder_from_directory(folder)
        dict((builder.info.metadata or {}).items())
        _check_features(folder, builder.info.features)
        lacking = _check_shards(folder, builder.info.splits, digests) if whole else []
    except UnavailableError:
        raise
    # TFDS's own errors, protobuf's, and those of every parser.
    except Exception as error:
        reason = one_line(error)[:200] or type(error).__name__
        raise UserError(f"{folder}: damaged ({reason}); {REMEDY}") from error
    if lacking:
        raise UserError(f"{folder}: lacks {first_names(lacking)}; {REMEDY}")
    return builder


def _is_shard(name: str) -> bool:
    return ".array_record" in name


def shard_digests(folder: Path) -> dict[str, FileDigest]:
    """Reads the digests of a dataset's shards, of all splits, by file name.

    Raises:
      UserError: as `read_digests`.
    """
    digests = read_digests(folder)
    # Files of these names are removed: none may be in another folder.
    return {n: d for n, d in digests.items() if _is_shard(n) and is_safe_name(n)}


def shard_sizes(folder: Path) -> dict[str, int]:
    """Lists the shards that a dataset has, on the disk or in its bucket, in bytes."""
    if url := url_of(folder):
        found = {name: entry.size for name, entry in list_objects(url).items()}
    else:
        found = {p.name: p.stat().st_size for p in folder.iterdir() if p.is_file()}
    return {name: nbytes for name, nbytes in found.items() if _is_shard(name)}


def _check_shards(
    folder: Path, splits: Mapping[str, Any], digests: Mapping[str, FileDigest]
) -> list[str]:
    """Returns the names of missing shards; checks the others if there are none."""
    lengths = {
        Path(path).name: length
        for split in splits.values()
        for path, length in zip(split.filepaths, split.shard_lengths, strict=True)
    }
    sizes = shard_sizes(folder)
    if lacking := [name for name in lengths if name not in sizes]:
        return lacking
    for name, length in lengths.items():
        check_size(name, sizes[name], digests)
        if url_of(folder) is None:
            _check_length(folder / name, length)
    return []


def _verify_beside(folder: Path, digests: Mapping[str, FileDigest]) -> None:
    """Verifies all files but the shards; no other may be there that TFDS would read."""
    names = {name for name in digests if not _is_shard(name)}
    names |= {
        path.name for kind in ("json", "txt") for path in folder.glob(f"*.{kind}")
    }
    for name in sorted(names):
        verify_file(folder / name, digests)


def _check_length(path: Path, length: int) -> None:
    open_file(path).close()  # the reader would wait for a pipe
    reader = ArrayRecordReader(str(path))
    found = reader.num_records()
    reader.close()
    if found != length:
        raise ValueError(f"{path.name} has {found:,} records, not {length:,}")


def _check_features(folder: Path, features: Any) -> None:
    kinds = {
        "image": tfds.features.Image,
        "filename": tfds.features.Text,
        "label": tfds.features.ClassLabel,
    }
    found = dict(features) if isinstance(features, tfds.features.FeaturesDict) else {}
    for name, kind in kinds.items():
        if name in found or name != "label":
            if not isinstance(found.get(name), kind):
                raise ValueError(f"its records have no {name}")
    if "label" in found:
        _check_labels(folder, found["label"])


def _check_labels(folder: Path, label: tfds.features.ClassLabel) -> None:
    """Without all of its lines the file of names is ignored by TFDS, or misread."""
    file = folder / Path(label.get_names_filepath(folder, "label")).name
    if not file.exists():  # its names are numbers
        return
    lines = file.read_text("utf-8").split("\n")
    if label.num_classes and len(lines) != label.num_classes + 1:
        raise ValueError(f"{file.name} has not {label.num_classes} lines")


class Shard(NamedTuple):
    """Rows of a split, from `first` to before `last`, and the files of their shard."""

    split: str
    first: int
    last: int
    path: Path
    journal: Path


def shard_ends(photos: int) -> list[int]:
    """The first row of each shard of a split, and the number of photos."""
    count = min(MAX_SHARDS, max(1, math.ceil(photos / PHOTOS_PER_SHARD)))
    return [photos * i // count for i in range(count + 1)]


def list_shards(name: str, lengths: Mapping[str, int], partial: Path) -> list[Shard]:
    """Lists a dataset's shards, below the folder that contains data/ and journal/."""
    template = _template(name, partial / "data")
    shards = []
    for split, photos in lengths.items():
        named, ends = template.replace(split=split), shard_ends(photos)
        for number, (first, last) in enumerate(itertools.pairwise(ends)):
            path = Path(
                named.sharded_filepath(shard_index=number, num_shards=len(ends) - 1)
            )
            journal = partial / "journal" / f"{path.name}.json"
            shards.append(Shard(split, first, last, path, journal))
    return shards


def _template(name: str, folder: Path) -> tfds.core.ShardedFileTemplate:
    return tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name=name, filetype_suffix="array_record"
    )


def write_dataset_info(
    spec: DatasetSpec,
    contents: DatasetContents,
    shards: Sequence[Shard],
    reports: Sequence[ShardReport],
    folder: Path,
) -> None:
    """Writes the files beside the shards: TFDS's, of `write_beside`, the digests."""
    skipped: dict[str, set[int]] = {split: set() for split in contents.splits}
    written: dict[str, list[ShardReport]] = {split: [] for split in contents.splits}
    for shard, report in zip(shards, reports, strict=True):
        skipped[shard.split] |= {shard.first + row for row in report.skipped}
        written[shard.split].append(report)
    info = tfds.core.DatasetInfo(
        builder=tfds.core.DatasetIdentity(
            name=spec.name,
            version=tfds.core.Version(VERSION),
            data_dir=str(folder),
            module_name=__name__,
            config_name=spec.config_name(),
            config_description=spec.description,
        ),
        description=spec.description,
        features=contents.features,
        metadata=tfds.core.MetadataDict(contents.metadata(skipped)),
        disable_shuffling=True,
    )
    info.set_file_format("array_record")
    splits = [
        tfds.core.SplitInfo(
            name=split,
            shard_lengths=[report.records for report in reports],
            num_bytes=sum(report.size for report in reports),
            filename_template=_template(spec.name, folder),
        )
        for split, reports in written.items()
    ]
    info.set_splits(tfds.core.SplitDict(splits))
    contents.write_beside(folder)
    info.write_to_directory(folder)
    write_digests(
        folder,
        {
            shard.path.name: FileDigest(report.nbytes, report.sha256)
            for shard, report in zip(shards, reports, strict=True)
        },
    )
