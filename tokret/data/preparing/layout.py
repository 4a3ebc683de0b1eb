"""A dataset's folder as TFDS reads it: shards, their names, and what describes them."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import tensorflow_datasets as tfds

from tokret.data.preparing.recipes import Plan, Recipe
from tokret.data.preparing.shards import ShardReport

VERSION = "1.0.0"
PHOTOS_PER_SHARD = 512  # at least, where there are more
# Of a split, at most: a reader keeps all of them open.
MOST_SHARDS = 256


class Shard(NamedTuple):
    """A slice of a split, from `first` to before `last`, and the files it goes into."""

    split: str
    first: int
    last: int
    path: Path
    journal: Path


def shard_lengths(photos: int) -> list[int]:
    """The number of photos in each shard of a split, by the photos' number alone."""
    count = min(MOST_SHARDS, max(1, math.ceil(photos / PHOTOS_PER_SHARD)))
    ends = [photos * i // count for i in range(count + 1)]
    return [last - first for first, last in zip(ends, ends[1:], strict=False)]


def shards_of(name: str, lengths: Mapping[str, int], partial: Path) -> list[Shard]:
    """Lays a dataset's shards out.

    Args:
      name: of the dataset.
      lengths: photos in each split.
      partial: the folder that data/ and journal/ are in.
    """
    template = _template(name, partial / "data")
    shards = []
    for split, photos in lengths.items():
        first, parts = 0, shard_lengths(photos)
        for number, length in enumerate(parts):
            path = Path(
                template.replace(split=split).sharded_filepath(
                    shard_index=number, num_shards=len(parts)
                )
            )
            journal = partial / "journal" / f"{path.name}.json"
            shards.append(Shard(split, first, first + length, path, journal))
            first += length
    return shards


def _template(name: str, folder: Path) -> tfds.core.ShardedFileTemplate:
    return tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name=name, filetype_suffix="array_record"
    )


def describe(
    recipe: Recipe,
    plan: Plan,
    shards: Sequence[Shard],
    reports: Sequence[ShardReport],
    folder: Path,
) -> None:
    """Writes what TFDS reads beside the shards, and what the plan adds.

    Args:
      recipe: of the dataset.
      plan: what it holds.
      shards: all of them.
      reports: one for each shard, in the same order.
      folder: where the shards are.
    """
    left_out: dict[str, set[int]] = {split: set() for split in plan.splits}
    for shard, report in zip(shards, reports, strict=True):
        left_out[shard.split] |= {shard.first + place for place in report.left_out}
    metadata = plan.metadata(left_out) if plan.metadata else {}
    info = tfds.core.DatasetInfo(
        builder=tfds.core.DatasetIdentity(
            name=recipe.name,
            version=tfds.core.Version(VERSION),
            data_dir=str(folder),
            module_name=__name__,
            config_name=recipe.config(),
            config_description=recipe.description,
        ),
        description=recipe.description,
        features=plan.features,
        metadata=tfds.core.MetadataDict(metadata),
        disable_shuffling=True,
    )
    info.set_file_format("array_record")
    info.set_splits(_splits(recipe.name, shards, reports, folder))
    if plan.write_beside:
        plan.write_beside(folder)
    info.write_to_directory(folder)


def _splits(
    name: str, shards: Sequence[Shard], reports: Sequence[ShardReport], folder: Path
) -> tfds.core.SplitDict:
    lengths: dict[str, list[int]] = {}
    sizes: dict[str, int] = {}
    for shard, report in zip(shards, reports, strict=True):
        lengths.setdefault(shard.split, []).append(report.records)
        sizes[shard.split] = sizes.get(shard.split, 0) + report.size
    return tfds.core.SplitDict(
        [
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=lengths[split],
                num_bytes=sizes[split],
                filename_template=_template(name, folder),
            )
            for split in lengths
        ]
    )
