"""Checkpoints in object storage: written locally, then uploaded; removed.

Orbax writes to a local disk alone, and the first process alone, so that the processes
need no common disk. `remote_runs` has what counts as a checkpoint.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from tokret.io.remote.fetching import TRANSFERS, drop
from tokret.io.remote.objects import list_objects, remove, upload
from tokret.io.remote.uploading import publish
from tokret.io.remote.urls import url_of
from tokret.runtime import cluster
from tokret.training.checkpoint_digests import FILE, write_digests
from tokret.training.remote_runs import drop_arrays, fetch_checkpoint


def copy_to_first(state: Any) -> Any:
    """Copies a state to the memory of the first process; all processes call it.

    What the first cannot read from its own devices is copied to them, one array after
    the other: beside the state they need memory for the largest array.

    Returns:
      A tree of NumPy arrays; in the other processes None.
    """
    copied = jax.tree.map(_copy_to_first, state)
    return copied if cluster.is_first() else None


def _copy_to_first(array: Any) -> np.ndarray | None:
    if not isinstance(array, jax.Array):
        return np.array(array)
    if not _is_readable_by_first(array):
        everywhere = NamedSharding(array.sharding.mesh, PartitionSpec())  # type: ignore[attr-defined]
        # One at a time, so that there is one such copy in the devices' memory.
        array = jax.block_until_ready(jax.jit(_same, out_shardings=everywhere)(array))
    if not cluster.is_first():
        return None
    # A copy: on CPUs NumPy would see the array's own memory, which a step donates.
    copy = np.empty(array.shape, array.dtype)
    for shard in {str(s.index): s for s in array.addressable_shards}.values():
        copy[shard.index] = np.asarray(shard.data)
    return copy


def _same(array: jax.Array) -> jax.Array:
    return array


def _is_readable_by_first(array: jax.Array) -> bool:
    """Whether the first process's devices have every piece of an array."""
    pieces: dict[Any, Any] = {**array.sharding.devices_indices_map(array.shape)}
    own = {str(index) for device, index in pieces.items() if device.process_index == 0}
    return own == {str(index) for index in pieces.values()}


def write(
    draft: Path,
    path: Path,
    items: Mapping[str, Any],
    metadata: Mapping[str, Any],
    before_commit: Callable[[], None],
) -> None:
    """Writes a checkpoint to a local disk, and uploads it; the first process does.

    Args:
      draft: the folder that is written.
      path: the local copy of the checkpoint, which keeps the small files in the end.
      items: trees of arrays, by name.
      metadata: in JSON types.
      before_commit: is called when all is uploaded but the digests, by which the
        checkpoint counts, before each try of theirs.

    Raises:
      OSError, ValueError: if it cannot be written locally.
      StorageError, UnavailableError: if it cannot be uploaded.
    """
    _write_locally(draft, items, metadata)
    write_digests(draft)
    url = f"{url_of(path)}"
    if list_objects(url):  # cannot be used, or of a run that took this one's lease
        before_commit()
        remove_objects(url)
    drop(path)
    files = (file for file in draft.rglob("*") if file.is_file())
    names = {file.relative_to(draft).as_posix() for file in files} - {FILE}
    _for_all(lambda name: upload(draft / name, f"{url}/{name}"), sorted(names))
    # Of tries that take long the last may come after another run has started.
    upload(draft / FILE, f"{url}/{FILE}", before_commit)
    os.replace(draft, path)
    drop_arrays(path)


def _write_locally(
    folder: Path, items: Mapping[str, Any], metadata: Mapping[str, Any]
) -> None:
    # Not Orbax's v1, as for disks: it makes all processes compare their paths, also
    # where one alone is active (0.12.8). It reads what is written here.
    import orbax.checkpoint as ocp

    alone = ocp.options.MultiprocessingOptions(
        primary_host=0, active_processes={0}, barrier_sync_key_prefix="first"
    )
    handlers = {
        name: ocp.PyTreeCheckpointHandler(use_zarr3=True, multiprocessing_options=alone)
        for name in items
    }
    options = ocp.CompositeOptions(multiprocessing_options=alone)
    with ocp.Checkpointer(
        ocp.CompositeCheckpointHandler(composite_options=options, **handlers),
        multiprocessing_options=alone,
    ) as writer:
        trees = {name: ocp.args.PyTreeSave(tree) for name, tree in items.items()}
        arguments = ocp.args.Composite(**trees)
        writer.save(folder, args=arguments, custom_metadata=dict(metadata))


def remove_objects(url: str) -> None:
    """Removes all objects of a folder; a checkpoint no longer counts from the first.

    Raises:
      StorageError, UnavailableError: as `objects` does.
    """
    names = list(list_objects(url))
    if FILE in names:
        remove(f"{url}/{FILE}")
        names.remove(FILE)
    _for_all(lambda name: remove(f"{url}/{name}"), names)


def remove_incomplete(folder: Path) -> None:
    """Removes from a run's folder of checkpoints those that were not uploaded wholly.

    Args:
      folder: the local copy; what is of no checkpoint is removed from it too.
    """
    found: dict[str, set[str]] = {}
    for name in list_objects(f"{url_of(folder)}"):
        step, _, file = name.partition("/")
        found.setdefault(step, set()).add(file)
    for step, files in found.items():
        if step.isdecimal() and FILE not in files:
            remove_objects(f"{url_of(folder)}/{step}")
    for path in folder.glob("[0-9]*"):
        if not (path / FILE).exists():
            drop(path)


def move(checkpoint: Path, target: Path) -> None:
    """Moves a checkpoint to another folder of the bucket, and drops the local copy."""
    shutil.copytree(fetch_checkpoint(checkpoint), target)
    publish(target)
    drop(target)
    remove_objects(f"{url_of(checkpoint)}")
    drop(checkpoint)


def _for_all(call: Callable[[str], None], names: Iterable[str]) -> None:
    with ThreadPoolExecutor(TRANSFERS) as pool:
        for _ in pool.map(call, names):
            pass
