"""The programs that train.py and eval.py run, lowered for devices of a pod."""

import dataclasses
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

from tokret.benchmark.pods import Pod
from tokret.config.tree import Config
from tokret.errors import UserError
from tokret.models.build import build_model
from tokret.models.retrieval_net import RetrievalNet
from tokret.retrieval.embedding import make_embed_fn
from tokret.retrieval.exact_search.blocks import BLOCK, QUERIES
from tokret.retrieval.exact_search.top_k import Best, add_blocks
from tokret.training.setup import make_mesh_and_model, set_up
from tokret.training.sharding import BATCH, REPLICATED, make_mesh

# bfloat16 passes of a float32 product of jax.lax.Precision.HIGHEST on a TPU, see
# https://docs.jax.dev/en/latest/_autosummary/jax.lax.Precision.html. Half of them have
# a part of the descriptor that is zero where it is bfloat16, and are skipped: for a
# block on v5e the compiler estimates 0.80 million cycles instead of 1.75.
HIGHEST = {"float32": 6, "bfloat16": 3}


class Workload(NamedTuple):
    """What a pod does once: a step, a batch, a search."""

    lowered: Any  # its program, to be compiled
    units: int  # images or queries of all devices together
    times: int = 1  # that the program runs
    iterations: int = 1  # of the loop that is nearly all of it; 1 without a loop
    passes: int = 1  # bfloat16 products that compute each of its products
    # units a second if all devices were at their peak; None if not counted
    peak: float | None = None
    resident: int = 0  # bytes on each device beside the program's arguments


def training(
    config: Config,
    pod: Pod,
    *,
    classes: int,
    photos: int,
    model: RetrievalNet | None = None,
) -> Workload:
    """Lowers a training step with so many photos of so many classes.

    A model replaces the config's, then without a peak.
    """
    mesh, own = make_mesh_and_model(config, pod.devices)
    setup = set_up(config, mesh, model or own, photos=photos, classes=classes)
    size, batch = config.augmentation.size, config.batch_size
    rows = NamedSharding(mesh, BATCH)
    lowered = cast(Any, setup.programs.train).lower(
        setup.programs.abstract,
        jax.ShapeDtypeStruct((batch, size, size, 3), jnp.uint8, sharding=rows),
        jax.ShapeDtypeStruct((batch,), jnp.int32, sharding=rows),
    )
    peak = None if model else setup.peak_images()
    parts = config.updates.grad_accum_steps
    return Workload(lowered, batch, iterations=parts, peak=peak)


def extraction(config: Config, pod: Pod, *, batch_size: int) -> Workload:
    """Lowers descriptors of a batch of squares of `evaluation.longest_side`.

    Raises:
      UserError: if the batch cannot be split over all devices.
    """
    mesh = make_mesh(pod.devices, data=config.mesh.data, model=config.mesh.model)
    model = build_model(**dataclasses.asdict(config.model))
    settings = config.evaluation
    if batch_size % mesh.size:
        raise UserError(
            f"batch_size is {batch_size}; it must be a multiple of {mesh.size} devices"
        )
    variables = jax.eval_shape(
        lambda: model.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)), train=False)
    )
    side, scales = settings.longest_side, settings.scales
    arrays = (
        ((batch_size, side, side, 3), jnp.uint8, BATCH),
        ((batch_size, 2), jnp.int32, BATCH),
        ((len(scales), batch_size, 2), jnp.int32, PartitionSpec(None, *BATCH)),
    )

    def abstract(shape: Any, dtype: Any, spec: PartitionSpec) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))

    lowered = cast(Any, make_embed_fn(model, scales, "tpu")).lower(
        jax.tree.map(lambda x: abstract(x.shape, x.dtype, REPLICATED), variables),
        *(abstract(*array) for array in arrays),
    )
    return Workload(lowered, batch_size)


def search(
    dims: int, pod: Pod, rows: int, store: str, k: int, *, queries: int
) -> Workload:
    """Lowers exact search in a database whose blocks are on the pod's chips.

    Every chip scores its own blocks, one after the other, and keeps their best; the
    hosts merge these short lists, which is not counted.

    The database has so many rows of `dims`, float32 or bfloat16 (`store`); each query
    gets the best k.
    """
    blocks = -(-rows // (BLOCK * len(pod.devices)))  # of the first chip
    at_once = min(queries, QUERIES)
    place = SingleDeviceSharding(pod.devices[0])

    def array(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=place)

    block = array(jnp.dtype(store), BLOCK, dims)
    dtypes: Any = (jnp.float32, jnp.int32)
    best = Best(*(cast(Any, array(dtype, at_once, k)) for dtype in dtypes))
    vectors = array(jnp.float32, at_once, dims)
    first = np.zeros(1, np.int32)
    add = cast(Any, add_blocks).lower(
        *(best, vectors, (block,), first, first, rows), k=k
    )
    times = -(-queries // at_once) * blocks
    others = (blocks - 1) * BLOCK * dims * block.dtype.itemsize
    passes = HIGHEST[store]
    return Workload(add, queries, times=times, passes=passes, resident=others)
