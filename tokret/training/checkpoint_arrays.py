"""The arrays of a checkpoint: their names and shapes, reading and writing by Orbax.

Orbax takes long to import, so only the functions that touch a checkpoint import it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from tokret.errors import UserError
from tokret.training.checkpoint_metadata import UnreadableError

STATE = "state"  # the name that a checkpoint keeps everything under
MAX_LISTED = 8  # names listed in one error


def read_shapes(path: Path) -> dict[str, Any]:
    """Returns a checkpoint's tree of shapes and dtypes, by the fields of the state.

    Raises:
      UnreadableError: if it cannot be read.
    """
    from orbax.checkpoint import v1 as ocp

    try:
        saved = ocp.checkpointables_metadata(path.resolve()).metadata[STATE]
        if not isinstance(saved, dict):
            raise ValueError("its list of arrays is missing or damaged")
    # Orbax and the libraries below raise anything for files that they did not write.
    except Exception as error:
        raise UnreadableError(
            f"{path} cannot be read as a checkpoint ({first_cause(error)}); remove it "
            "to use the one before it"
        ) from error
    return saved


def load_arrays(
    path: Path, shapes: Any, *, partial: bool = False, padded: bool = False
) -> Any:
    """Loads arrays of a checkpoint, given a tree of shapes, dtypes and shardings.

    With `partial` it may hold more arrays than those; with `padded` arrays are padded
    with zeros, or cut, to their shapes.

    Raises:
      UnreadableError: if the checkpoint is damaged.
    """
    from orbax.checkpoint import v1 as ocp

    context = ocp.Context()
    context.pytree.loading.partial_load = partial
    context.array.loading.enable_padding_and_truncation = padded
    try:
        with context:
            return ocp.load_checkpointables(path.resolve(), {STATE: shapes})[STATE]
    except (OSError, ValueError, KeyError) as error:
        raise UnreadableError(
            f"{path} is damaged ({first_cause(error)}); use another checkpoint"
        ) from error


def start_saving(path: Path, state: Any, metadata: Mapping[str, Any]) -> Any:
    """Starts to write a checkpoint in the background; arrays may then be overwritten.

    Returns Orbax's response, whose `result()` waits until the checkpoint is complete.

    Raises:
      OSError: if it cannot be written, as `result()` does; or ValueError.
    """
    from orbax.checkpoint import v1 as ocp

    return ocp.save_checkpointables_async(
        path.resolve(), {STATE: state}, custom_metadata=dict(metadata)
    )


def first_cause(error: Exception) -> str:
    """Returns the message of an error's first cause; those raised from it guess."""
    inner: BaseException = error
    while (cause := inner.__cause__ or inner.__context__) is not None:
        inner = cause
    words = " ".join(str(inner).split())
    return words[:300] if words else type(inner).__name__


def check_names(
    path: Path,
    wanted: Any,
    prefixes: tuple[str, ...],
    problem: str = "does not hold this model",
) -> None:
    """Compares the names and shapes of a checkpoint with those wanted.

    Only names that start with one of `prefixes` are compared. `wanted` is a training
    state of shapes, or some of its fields in a dictionary. Orbax itself returns the
    arrays it was given where a name is missing.

    Raises:
      UserError: if the checkpoint cannot be read; or listing names that are missing,
        unexpected, or of another shape.
    """
    saved, expected = (
        {
            name: tuple(leaf.shape)
            for name, leaf in by_name(tree).items()
            if name.startswith(prefixes)
        }
        for tree in (read_shapes(path), wanted)
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
        raise UserError(f"{path} {problem}: {listed}")


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
