"""The order of the training photos, and whether the local disk suffices for it."""

import shutil

from tokret.config.tree import Config
from tokret.data.datasets import Dataset
from tokret.errors import UserError
from tokret.io.remote.urls import shown

SPLITS = ("train", "validation")
# Of windows: the one that is read and the next one; as much is left for validation.
WINDOWS = 3


def describe_order(config: Config, dataset: Dataset) -> str:
    """Returns the order in words, and why it is that one; "" if it needs none."""
    shuffle = config.shuffle
    if shuffle.order == "windows":
        return (
            f"shuffled in windows of {shuffle.window_gib:g} GiB of each process "
            "(config.shuffle)"
        )
    if dataset.remote_shards is None:
        return ""
    gib = _bytes(dataset) / 2**30
    return (
        f"shuffled globally; all {gib:.3g} GiB of its shards are fetched, within "
        f"config.run.cache_gib={config.run.cache_gib:g}"
    )


def check_cache(config: Config, dataset: Dataset) -> None:
    """Checks that the shards of a dataset in a bucket fit into the local cache.

    Raises:
      UserError: names the fields to change, or the disk that is too small.
    """
    shards = dataset.remote_shards
    if shards is None:
        return
    run, shuffle, most = config.run, config.shuffle, int(config.run.cache_gib * 2**30)
    if shuffle.order == "global":
        needed = _bytes(dataset)
        if needed > most:
            raise UserError(
                f"config.run.cache_gib is {run.cache_gib:g}, but the shards of "
                f"{shown(dataset.folder)} have {needed / 2**30:.3g} GiB, and "
                "config.shuffle.order=global needs all of them on the local disk of "
                "each host; raise it, or set config.shuffle.order to windows"
            )
    else:
        largest = max(max(dataset.shards(name).nbytes) for name in _splits(dataset))
        window = max(int(shuffle.window_gib * 2**30), largest)
        needed = WINDOWS * window
        if needed > most:
            raise UserError(
                f"config.run.cache_gib is {run.cache_gib:g}; it must be at least "
                f"{WINDOWS} times a window, {window / 2**30:.3g} GiB "
                "(config.shuffle.window_gib, or the largest shard)"
            )
        needed = min(most, _bytes(dataset))
    free = shutil.disk_usage(dataset.folder).free + shards.nbytes_here()
    if needed > free:
        raise UserError(
            f"config.run.cache_gib is {run.cache_gib:g}, but the disk of the local "
            f"copies has {free / 2**30:.3g} GiB left for shards; lower it, or name a "
            "folder on a larger disk: TOKRET_CACHE=FOLDER in the environment"
        )


def _splits(dataset: Dataset) -> list[str]:
    return [split for split in SPLITS if dataset.has(split)]


def _bytes(dataset: Dataset) -> int:
    return sum(sum(dataset.shards(split).nbytes) for split in _splits(dataset))
