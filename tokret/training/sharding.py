"""How arrays are split over the mesh `data` x `model`.

Images and the whole trunk are split over both axes; class matrices, their momentum and
the logits over `model`; all other weights are on every device. The optimiser's state
and the moving average, which only the update touches, may be split over both axes.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from tokret.errors import UserError

BATCH = PartitionSpec(("data", "model"))
DESCRIPTORS = PartitionSpec("data")  # gathered along `model`, just before the logits
CLASSES = PartitionSpec("model")
REPLICATED = PartitionSpec()


def make_mesh(devices: Sequence[Any], *, data: int, model: int) -> Mesh:
    """Makes the mesh over all devices of all hosts, or abstract ones to compile for.

    A `data` of -1 takes the devices that `model` leaves.

    Raises:
      UserError: if the two do not multiply to the number of devices.
    """
    count = len(devices)
    if data == -1 and model > 0:
        data = count // model
    if model < 1 or data * model != count:
        raise UserError(
            f"data x model is {data} x {model}, but there are {count} devices; "
            "choose a model that divides them, and data -1 for the rest"
        )
    # jax.make_mesh splits a pod's physical axes only on v5e: on other kinds it refuses
    # 64 x 4 on a 16 x 16 torus.
    placed = mesh_utils.create_device_mesh(
        (data, model), devices, allow_split_physical_axes=True
    )
    auto = (AxisType.Auto,) * 2
    return Mesh(placed, ("data", "model"), axis_types=auto)


def padded_classes(classes: int, mesh: Mesh) -> int:
    """Rounds the classes up to a multiple of the axis `model`."""
    return math.ceil(classes / mesh.shape["model"]) * mesh.shape["model"]


def state_shardings(
    abstract_state: Any, mesh: Mesh, *, shard_optimiser: bool = False
) -> Any:
    """Returns the sharding of every array of a training state of shapes.

    Class matrices and their momentum have a name on their path that starts with
    `arcface`. With `shard_optimiser` the optimiser's state and the moving average are
    split over all devices, where an axis of an array divides.
    """

    def place(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        names = (str(getattr(key, "key", "")) for key in path)
        classes = leaf.ndim == 2 and any(name.startswith("arcface") for name in names)
        spread = shard_optimiser and path[0].name in ("opt_state", "ema_params")
        if classes:
            columns = spread and leaf.shape[1] % mesh.shape["data"] == 0
            spec = PartitionSpec("model", "data") if columns else CLASSES
        else:
            spec = widest(leaf.shape, mesh.size) if spread else REPLICATED
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(place, abstract_state)


def widest(shape: tuple[int, ...], devices: int) -> PartitionSpec:
    """Splits the longest axis that divides by the number of devices, if one does."""
    axes = [axis for axis, size in enumerate(shape) if size and size % devices == 0]
    if not axes:
        return REPLICATED
    axis = max(axes, key=lambda i: shape[i])
    return PartitionSpec(*(None,) * axis, ("data", "model"))


def to_devices(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Splits this process's slice of a global batch over its devices."""
    sharding = NamedSharding(mesh, BATCH)
    return {
        name: jax.make_array_from_process_local_data(sharding, array)
        for name, array in batch.items()
    }
