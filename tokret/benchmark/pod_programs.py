"""The programs that train.py and eval.py run, lowered for devices of a pod."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from tokret.benchmark.pods import Pod
from tokret.configuration import Config, call, part
from tokret.errors import UserError
from tokret.models.build import build_model
from tokret.models.retrieval_net import RetrievalNet
from tokret.retrieval.blocks import BLOCK
from tokret.retrieval.extraction import Extraction, make_describe
from tokret.retrieval.search import QUERIES
from tokret.retrieval.selection import Best, add_blocks
from tokret.training.setup import check, lay_out, make_recipe
from tokret.training.sharding import BATCH, REPLICATED

# What a float32 product of jax.lax.Precision.HIGHEST takes on a TPU, says
# https://docs.jax.dev/en/latest/_autosummary/jax.lax.Precision.html
HIGHEST = 6


class Part(NamedTuple):
    """A program of some work.

    Attributes:
      lowered: to be compiled.
      times: that it runs.
      turns: of the loop that is all but a little of it; 1 without a loop.
      passes: products in bfloat16 that stand for each of its products.
    """

    lowered: Any
    times: int = 1
    turns: int = 1
    passes: int = 1


class Work(NamedTuple):
    """What a pod is to do once: a step, a batch, a search.

    Attributes:
      parts: programs, one after the other.
      units: images or queries of all devices together.
      peak: units a second if all devices were at their peak; None if not counted.
      held: bytes that lie on each device beside what a program is given.
    """

    parts: Sequence[Part]
    units: int
    peak: float | None = None
    held: int = 0


class Sought(NamedTuple):
    """A database, and how many of its descriptors are looked for.

    Attributes:
      database: its number of descriptors.
      store: their dtype: float32 or bfloat16.
      k: how many of the best each query gets.
    """

    database: int
    store: str
    k: int


def training(
    config: Config,
    pod: Pod,
    *,
    classes: int,
    photos: int,
    model: RetrievalNet | None = None,
) -> Work:
    """Lowers a training step.

    Args:
      config: the whole config; what it says of photos' places is not looked at.
      pod: what it is for.
      classes: of the photos.
      photos: to train with.
      model: what takes the place of the config's, then without a peak; None for that.

    Raises:
      UserError: for a field that cannot be.
    """
    checked = check(config, pod.devices)
    checked = checked._replace(model=model or checked.model)
    recipe = make_recipe(checked, photos=photos, classes=classes, name="the plan")
    size, batch = checked.augmentation.size, checked.batch_size
    rows = NamedSharding(checked.mesh, BATCH)
    lowered = cast(Any, recipe.programs.train).lower(
        recipe.programs.abstract,
        jax.ShapeDtypeStruct((batch, size, size, 3), jnp.uint8, sharding=rows),
        jax.ShapeDtypeStruct((batch,), jnp.int32, sharding=rows),
    )
    turns = checked.updating.grad_accum_steps
    peak = None if model else recipe.peak_images()
    return Work([Part(lowered, turns=turns)], batch, peak)


def extraction(config: Config, pod: Pod, *, batch_size: int) -> Work:
    """Lowers the description of a batch of squares of `evaluation.longest_side`.

    Args:
      config: the whole config; its model, mesh and evaluation matter.
      pod: what it is for; the batch is split over all of it.
      batch_size: views a batch.

    Raises:
      UserError: for a field that cannot be, or a batch that cannot be split.
    """
    mesh, _ = call(
        functools.partial(lay_out, pod.devices), "mesh", part(config, "mesh", dict)
    )
    model = call(build_model, "model", part(config, "model", dict))
    settings = call(Extraction, "evaluation", part(config, "evaluation", dict))
    if batch_size % mesh.size:
        raise UserError(
            f"--batch_size={batch_size} does not divide among {mesh.size} devices"
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
    lowered = cast(Any, make_describe(model, scales, "tpu")).lower(
        jax.tree.map(lambda leaf: _abstract(leaf, mesh), variables),
        *(
            jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))
            for shape, dtype, spec in arrays
        ),
    )
    return Work([Part(lowered)], batch_size)


def searching(config: Config, pod: Pod, sought: Sought, *, queries: int) -> Work:
    """Lowers exact search in a database whose blocks lie on the pod's chips.

    Every chip scores its own blocks, one after the other, and keeps their best; the
    hosts put these short lists together, which is not counted.

    Args:
      config: the whole config; its model's dimensions matter.
      pod: what it is for.
      sought: the database, and how many of it are looked for.
      queries: that are asked together.
    """
    dims = part(part(config, "model", dict), "dim", int)
    blocks = -(-sought.database // (BLOCK * len(pod.devices)))  # of the first chip
    at_once = min(queries, QUERIES)
    rounds = -(-queries // at_once)
    place = SingleDeviceSharding(pod.devices[0])

    def array(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=place)

    block = array(jnp.dtype(sought.store), BLOCK, dims)
    dtypes: Any = (jnp.float32, jnp.int32)
    best = Best(*(cast(Any, array(dtype, at_once, sought.k)) for dtype in dtypes))
    asked = array(jnp.float32, at_once, dims)
    first = np.zeros(1, np.int32)
    add = cast(Any, add_blocks).lower(
        *(best, asked, (block,), first, first, sought.database), k=sought.k
    )
    parts = [Part(add, times=rounds * blocks, passes=HIGHEST)]
    others = (blocks - 1) * BLOCK * dims * block.dtype.itemsize
    return Work(parts, queries, held=others)


def _abstract(leaf: Any, mesh: Mesh) -> jax.ShapeDtypeStruct:
    everywhere = NamedSharding(mesh, REPLICATED)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere)
