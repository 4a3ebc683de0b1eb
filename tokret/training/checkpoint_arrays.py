"""The arrays of a checkpoint: their names and shapes, reading and writing by Orbax.

Orbax takes long to import, so only the functions that touch a checkpoint import it.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax

from tokret.errors import UserError
from tokret.io.atomic_files import sync_folder
from tokret.io.remote.urls import url_of
from tokret.runtime import cluster
from tokret.runtime.coordinator import process_index
from tokret.training import remote_checkpoints
from tokret.training.checkpoint_digests import damaged, verify, write_digests
from tokret.training.remote_runs import fetch_checkpoint

STATE = "state"  # the name that a checkpoint keeps everything under
SAVING = ".saving-"  # precedes the name of a checkpoint that is not complete
MAX_LISTED = 8  # names listed in one error


@dataclasses.dataclass(frozen=True)
class SavedArrays:
    """The arrays of a checkpoint whose files are as they were written.

    Made by `open_arrays`, so that none is loaded without being verified.

    Attributes:
      path: the checkpoint's folder.
      shapes: tree of shapes and dtypes, by the fields of the state.
    """

    path: Path
    shapes: Mapping[str, Any]

    def check_names(
        self,
        wanted: Any,
        prefixes: tuple[str, ...],
        problem: str = "does not hold this model",
    ) -> None:
        """Compares the names and shapes of the checkpoint with those wanted.

        Only names that start with one of `prefixes` are compared. `wanted` is a
        training state of shapes, or some of its fields in a dictionary. Orbax itself
        returns the arrays it was given where a name is missing.

        Raises:
          UserError: listing names that are missing, unexpected, or of another shape.
        """
        saved, expected = (
            {
                name: tuple(leaf.shape)
                for name, leaf in by_name(tree).items()
                if name.startswith(prefixes)
            }
            for tree in (self.shapes, wanted)
        )
        found = [f"{name} is missing" for name in expected.keys() - saved.keys()]
        found += [f"{name} is unexpected" for name in saved.keys() - expected.keys()]
        found += [
            f"{name} has shape {saved[name]}, not {expected[name]}"
            for name in expected.keys() & saved.keys()
            if _unpadded(name, saved[name]) != _unpadded(name, expected[name])
        ]
        if found:
            more = [f"and {len(found) - MAX_LISTED} more"] * (len(found) > MAX_LISTED)
            listed = "; ".join(sorted(found)[:MAX_LISTED] + more)
            raise UserError(f"{self.path} {problem}: {listed}")

    def load(self, shapes: Any, *, partial: bool = False, padded: bool = False) -> Any:
        """Loads arrays, given a tree of shapes, dtypes and shardings.

        With `partial` the checkpoint may hold more arrays than those; with `padded`
        arrays are padded with zeros, or cut, to their shapes.

        Raises:
          UnreadableError: if they cannot be read all the same.
        """
        from orbax.checkpoint import v1 as ocp

        context = _context(self.path)
        context.pytree.loading.partial_load = partial
        context.array.loading.enable_padding_and_truncation = padded
        try:
            with context:
                found = ocp.load_checkpointables(self.path.resolve(), {STATE: shapes})
        except (OSError, ValueError, KeyError) as error:
            raise damaged(self.path, first_cause(error)) from error
        return found[STATE]


def _context(path: Path) -> Any:
    """Returns Orbax's options; of a local copy no process waits for the others."""
    from orbax.checkpoint import v1 as ocp

    context = ocp.Context()
    if url_of(path) is not None:
        context.multiprocessing.primary_host = process_index()
        context.multiprocessing.active_processes = {process_index()}
    return context


def open_arrays(path: Path) -> SavedArrays:
    """Verifies all files of a checkpoint, and reads which arrays it has.

    Of one in object storage all files are fetched before.

    Raises:
      UnreadableError: if it is damaged.
      UserError: if it was made without digests.
    """
    from orbax.checkpoint import v1 as ocp

    verify(fetch_checkpoint(path))
    try:
        with _context(path):
            saved = ocp.checkpointables_metadata(path.resolve()).metadata[STATE]
        if not isinstance(saved, dict):
            raise ValueError("its list of arrays is missing or damaged")
    # Orbax and the libraries below raise anything for files that they did not write.
    except Exception as error:
        raise damaged(path, first_cause(error)) from error
    return SavedArrays(path, saved)


def start_saving(
    path: Path,
    state: Any,
    metadata: Mapping[str, Any],
    before_commit: Callable[[], None] = lambda: None,
) -> Future[None]:
    """Starts to write a checkpoint in the background; arrays may then be overwritten.

    The future's `result()` waits until the checkpoint is complete. It gets its name
    last: a process that is killed before leaves a folder named `SAVING` and so on. One
    in object storage is uploaded by the first process; `before_commit` is called in
    the background before it counts.

    Raises:
      OSError: if it cannot be written, as `result()` does; or ValueError.
      StorageError, UnavailableError: as `result()` does, of object storage.
    """
    from orbax.checkpoint import v1 as ocp

    path = path.resolve()
    draft = path.with_name(f"{SAVING}{path.name}")
    if url_of(path) is not None:
        copied = {STATE: remote_checkpoints.copy_to_first(state)}
        write = remote_checkpoints.write if cluster.is_first() else _nothing
        return in_background(write, draft, path, copied, metadata, before_commit)
    response = ocp.save_checkpointables_async(
        draft, {STATE: state}, custom_metadata=dict(metadata)
    )
    return in_background(_commit, response, draft, path)


def in_background(work: Callable[..., None], *arguments: Any) -> Future[None]:
    """Calls a function in a thread of its own."""
    thread = ThreadPoolExecutor(1)
    running = thread.submit(work, *arguments)
    thread.shutdown(wait=False)
    return running


def _nothing(*_: object) -> None:
    pass


def _commit(response: Any, draft: Path, path: Path) -> None:
    response.result()  # Orbax's, of all processes
    if cluster.is_first():
        write_digests(draft)
        os.replace(draft, path)
        sync_folder(path.parent)


def first_cause(error: Exception) -> str:
    """Returns the message of an error's first cause; those raised from it guess."""
    inner: BaseException = error
    while (cause := inner.__cause__ or inner.__context__) is not None:
        inner = cause
    words = " ".join(str(inner).split())
    return words[:300] if words else type(inner).__name__


def _unpadded(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Drops the axis that depends on the mesh: rows of class matrices are padded."""
    is_classes = "/arcface" in name and "/model/" not in name
    return shape[1:] if is_classes else shape


def by_name(tree: Any) -> dict[str, Any]:
    """Returns a tree's leaves by their paths, such as params/model/head/kernel."""
    return {
        jax.tree_util.keystr(key, simple=True, separator="/"): leaf
        for key, leaf in jax.tree.leaves_with_path(tree)
    }


def on_first_device(shapes: Any) -> Any:
    """Adds the sharding on the first device of this process to a tree of shapes."""
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device),
        shapes,
    )
