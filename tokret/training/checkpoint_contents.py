"""What a checkpoint holds, by name and shape, before anything of it is loaded."""

from pathlib import Path
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from tokret.errors import UserError
from tokret.training.checkpoint_description import UnreadableError

STATE = "state"  # the name that a checkpoint keeps everything under
TOLD = 8  # differences that fit into one line that is read


def check_names(path: Path, wanted: Any, within: tuple[str, ...]) -> None:
    """Refuses another model's weights before anything is loaded.

    Args:
      path: the checkpoint.
      wanted: as `differences` takes it.
      within: as `differences` takes it.

    Raises:
      UserError: if the checkpoint cannot be read; or listing names that are missing,
        in the way, or of another shape.
    """
    problems = differences(path, wanted, within)
    if problems:
        raise UserError(f"{path} does not hold this model: {in_a_line(problems)}")


def in_a_line(problems: list[str]) -> str:
    """Joins what `differences` found: the first ones, and how many there are beside."""
    more = [f"and {len(problems) - TOLD} more"] if len(problems) > TOLD else []
    return "; ".join(problems[:TOLD] + more)


def differences(path: Path, wanted: Any, within: tuple[str, ...]) -> list[str]:
    """Compares names and shapes.

    Orbax alone gives back what it was asked for where a name is missing.

    Args:
      path: the checkpoint.
      wanted: {"params": ..., "batch_stats": ..., "opt_state": ...} of shapes, or some
        of these.
      within: only names that begin with one of these are compared.

    Returns:
      What is missing, in the way, or of another shape, sorted.

    Raises:
      UserError: if the checkpoint cannot be read.
    """
    there, here = (
        {
            name: tuple(leaf.shape)
            for name, leaf in _by_name(tree).items()
            if name.startswith(within)
        }
        for tree in (read_metadata(path), wanted)
    )
    problems = [f"{name} is missing" for name in here.keys() - there.keys()]
    problems += [f"{name} is not wanted" for name in there.keys() - here.keys()]
    problems += [
        f"{name} has shape {there[name]}, not {here[name]}"
        for name in here.keys() & there.keys()
        if _unpadded(name, there[name]) != _unpadded(name, here[name])
    ]
    return sorted(problems)


def _unpadded(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The sides that the mesh does not decide: rows of class matrices are padded."""
    classes = "/arcface" in name and "/model/" not in name
    return shape[1:] if classes else shape


def _by_name(tree: Any) -> dict[str, Any]:
    return {
        jax.tree_util.keystr(key, simple=True, separator="/"): leaf
        for key, leaf in jax.tree.leaves_with_path(tree)
    }


def read_metadata(path: Path) -> Any:
    """Returns shapes and dtypes of a checkpoint's weights and optimiser, by name.

    Raises:
      UserError: if the checkpoint cannot be read.
    """
    try:
        saved = ocp.checkpointables_metadata(path.resolve()).metadata[STATE]
        if saved is None:
            raise ValueError("its list of arrays is missing or damaged")
        # The last two are in runs' checkpoints only.
        names = ("params", "batch_stats", "average", "opt_state")
        return {name: saved[name] for name in names if name in saved}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UnreadableError(
            f"{path} cannot be read as a checkpoint ({error}); remove it to use the "
            "one before it"
        ) from error
