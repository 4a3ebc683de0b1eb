"""The programs that train.py and eval.py run, lowered for devices of a pod."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

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
# https://docs.jax.dev/en/latest/_autosummary/jax.lax.Precision.html
HIGHEST = 6


class PodProgram(NamedTuple):
    """A program of a workload.

    Attributes:
      lowered: to be compiled.
      times: that it runs.
      iterations: of the loop that is nearly all of it; 1 without a loop.
      passes: bfloat16 products that compute each of its products.
    """

    lowered: Any
    times: int = 1
    iterations: int = 1
    passes: int = 1


class Workload(NamedTuple):
    """What a pod does once: a step, a batch, a search.

    Attributes:
      programs: one after the other.
      units: images or queries of all devices together.
      peak: units a second if all devices were at their peak; None if not counted.
      resident: bytes on each device beside a program's arguments.
    """

    programs: Sequence[PodProgram]
    units: int
    peak: float | None = None
    resident: int = 0


class Database(NamedTuple):
    """A database that is searched.

    Attributes:
      rows: its number of descriptors.
      store: their dtype: float32 or bfloat16.
      k: how many of the best each query gets.
    """

    rows: int
    store: str
    k: int


def training(
    config: Config,
    pod: Pod,
    *,
    classes: int,
    photos: int,
    model: RetrievalNet | None = None,
) -> Workload:
    """Lowers a training step.

    Args:
      config: the whole config; paths in it are not used.
      pod: the devices.
      classes: of the photos.
      photos: to train with.
      model: replaces the config's, then without a peak; None takes the config's.

    Raises:
      UserError: for a wrong field.
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
    program = PodProgram(lowered, iterations=config.updates.grad_accum_steps)
    return Workload([program], batch, None if model else setup.peak_images())


def extraction(config: Config, pod: Pod, *, batch_size: int) -> Workload:
    """Lowers descriptors of a batch of squares of `evaluation.longest_side`.

    Args:
      config: the whole config; its model, mesh and evaluation matter.
      pod: the devices; the batch is split over all of them.
      batch_size: views a batch.

    Raises:
      UserError: for a wrong field, or a batch that cannot be split.
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
    lowered = cast(Any, make_embed_fn(model, scales, "tpu")).lower(
        jax.tree.map(lambda leaf: _abstract(leaf, mesh), variables),
        *(
            jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))
            for shape, dtype, spec in arrays
        ),
    )
    return Workload([PodProgram(lowered)], batch_size)


def search(config: Config, pod: Pod, database: Database, *, queries: int) -> Workload:
    """Lowers exact search in a database whose blocks are on the pod's chips.

    Every chip scores its own blocks, one after the other, and keeps their best; the
    hosts merge these short lists, which is not counted.

    Args:
      config: the whole config; its model's dimensions matter.
      pod: the devices.
      database: what is searched.
      queries: of one call.
    """
    dims = config.model.dim
    blocks = -(-database.rows // (BLOCK * len(pod.devices)))  # of the first chip
    at_once = min(queries, QUERIES)
    rounds = -(-queries // at_once)
    place = SingleDeviceSharding(pod.devices[0])

    def array(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=place)

    block = array(jnp.dtype(database.store), BLOCK, dims)
    dtypes: Any = (jnp.float32, jnp.int32)
    best = Best(*(cast(Any, array(dtype, at_once, database.k)) for dtype in dtypes))
    vectors = array(jnp.float32, at_once, dims)
    first = np.zeros(1, np.int32)
    add = cast(Any, add_blocks).lower(
        *(best, vectors, (block,), first, first, database.rows), k=database.k
    )
    program = PodProgram(add, times=rounds * blocks, passes=HIGHEST)
    others = (blocks - 1) * BLOCK * dims * block.dtype.itemsize
    return Workload([program], queries, resident=others)


def _abstract(leaf: Any, mesh: Mesh) -> jax.ShapeDtypeStruct:
    everywhere = NamedSharding(mesh, REPLICATED)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere)
