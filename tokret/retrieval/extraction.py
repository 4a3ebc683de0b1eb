"""Views of any shape -> descriptors, in full batches, exactly.

Views are padded at the right and the bottom to a few canvases and their true sizes
travel along; the model masks what lies outside. A descriptor is the same as if its
view were alone, and an evaluation compiles one program a canvas.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tokret.arguments import within
from tokret.data.views import View
from tokret.errors import UserError
from tokret.models.layers import l2_normalise
from tokret.models.preprocessing import normalise
from tokret.models.retrieval_net import RetrievalNet
from tokret.retrieval.canvases import Canvas, plan_canvases
from tokret.retrieval.rows import Rows, RowsInMemory
from tokret.retrieval.view_batches import Survey, load_batches, survey
from tokret.runtime.compiler_options import inference_options
from tokret.runtime.process_group import ALONE, Arrays, ProcessGroup
from tokret.shapes import Array, Float, Int, UInt8

PROGRAMS = 12  # most canvases of an evaluation, each of which is compiled
Describe = Callable[..., jax.Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Extraction:
    """How descriptors are made; `config.evaluation`.

    Attributes:
      longest_side: of a database photo, in pixels; larger ones are shrunk.
      scales: factors of the sides; each gives a descriptor, and their normalised mean
        is the result.
      batch_size: views a batch; a multiple of the devices uses them all.
      canvases: most padded shapes, up to 12; each costs a compilation.
    """

    longest_side: int
    scales: Sequence[float]
    batch_size: int
    canvases: int

    def __post_init__(self) -> None:
        for field in ("longest_side", "batch_size"):
            within(f"evaluation.{field}", getattr(self, field), 1)
        within("evaluation.canvases", self.canvases, 1, PROGRAMS)
        if not isinstance(self.scales, Sequence) or not self.scales:
            raise UserError(
                f"config.evaluation.scales is {self.scales!r}; it must be numbers, "
                "such as (1.0,)"
            )
        for scale in self.scales:
            if not isinstance(scale, (int, float)):
                raise UserError(
                    f"config.evaluation.scales holds {scale!r}; it must hold numbers"
                )
            within("evaluation.scales", float(scale), 0.05, 20)


# As the authors evaluate (their test.py).
RELEASED = Extraction(
    longest_side=1024, scales=(1.0, 2**0.5, 2**-0.5), batch_size=8, canvases=8
)


def interpolation(
    sizes: Int[Array, " b"], inputs: int, outputs: int, scale: float
) -> Float[Array, "b o i"]:
    """Makes the matrices that rescale one axis bilinearly, one an image.

    Half-pixel centres, no antialiasing, sampling step exactly 1 / scale, edges
    repeated: PyTorch's `interpolate(scale_factor=scale)`, within each true size.

    Args:
      sizes: true sides along the axis.
      inputs: the canvas's side.
      outputs: the canvas's side after rescaling.
      scale: factor of the sides.
    """
    position = jnp.maximum((jnp.arange(outputs) + 0.5) / scale - 0.5, 0.0)
    last = sizes[:, None] - 1  # [b, 1]
    low = jnp.minimum(jnp.floor(position).astype(jnp.int32), last)  # [b, o]
    high = jnp.minimum(low + 1, last)
    share = position - jnp.floor(position)  # [o]
    columns = jnp.arange(inputs)
    at_low = (low[..., None] == columns) * (1 - share)[None, :, None]
    at_high = (high[..., None] == columns) * share[None, :, None]
    return at_low + at_high


def rescale(
    images: Float[Array, "b h w 3"], sizes: Int[Array, "b 2"], scale: float
) -> Float[Array, "b h2 w2 3"]:
    """Rescales every image of a padded batch within its true size."""
    height, width = images.shape[1:3]
    rows = interpolation(sizes[:, 0], height, int(height * scale), scale)
    columns = interpolation(sizes[:, 1], width, int(width * scale), scale)
    exact = jax.lax.Precision.HIGHEST
    rows, columns = rows.astype(images.dtype), columns.astype(images.dtype)
    images = jnp.einsum("boh,bhwc->bowc", rows, images, precision=exact)
    return jnp.einsum("bpw,bowc->bopc", columns, images, precision=exact)


def scaled_sizes(sizes: Int[np.ndarray, "b 2"], scale: float) -> np.ndarray:
    """Returns true sizes after rescaling: floor(side * scale), in double precision."""
    return np.maximum(np.floor(sizes * scale), 1).astype(np.int32)


def make_describe(
    model: RetrievalNet, scales: Sequence[float], platform: str | None = None
) -> Describe:
    """Jits multi-scale description.

    On a CPU or GPU it has compiler options of its own, so no other jit can call it.

    Args:
      model: images to (descriptors, intermediates).
      scales: factors of the sides; each gives a descriptor, and their normalised mean
        is the result.
      platform: that it is compiled for; None for that of jax's default backend.

    Returns:
      A function of (variables, images [b, h, w, 3] uint8, sizes [b, 2] of them, sizes
      [scales, b, 2] after rescaling, which only double precision rounds as PyTorch
      does) to descriptors [b, d].
    """

    def describe(
        variables: Any,
        images: UInt8[Array, "b h w 3"],
        sizes: Int[Array, "b 2"],
        rescaled: Int[Array, "s b 2"],
    ) -> Float[Array, "b d"]:
        pixels = normalise(images, model.pixels)
        total: Any = 0.0
        for i, scale in enumerate(scales):
            scaled = pixels if scale == 1 else rescale(pixels, sizes, scale)
            result = model.apply(variables, scaled, rescaled[i], train=False)
            total = total + result[0]
        return l2_normalise(total / len(scales))

    return jax.jit(describe, compiler_options=inference_options(model.dtype, platform))


def extract(
    describe: Describe,
    variables: Any,
    views: Sequence[View],
    settings: Extraction,
    progress: Callable[[int], Any] = lambda done: None,
) -> Float[np.ndarray, "n d"]:
    """Describes views of any shape, in memory; each of them must be good.

    Args:
      describe: what `make_describe` made for the settings' scales.
      variables: the model's parameters and statistics.
      views: what to describe.
      settings: how.
      progress: called with the number of views done since the last call.

    Returns:
      Descriptors in the order of the views, L2-normalised.

    Raises:
      UserError: if a photo is bad, or the model gives something other than numbers.
    """
    photos = survey(views)
    rows = RowsInMemory(len(views))
    if not photos.bad:
        canvases = plan_canvases(photos.sizes, settings.canvases, settings.batch_size)
        extract_into(
            rows, describe, variables, views, photos, canvases, settings, progress
        )
    for why in [*photos.bad.values(), *rows.bad.values()]:
        raise UserError(why)
    assert rows.descriptors is not None
    return rows.descriptors


def extract_into(
    rows: Rows,
    describe: Describe,
    variables: Any,
    views: Sequence[View],
    photos: Survey,
    canvases: Sequence[Canvas],
    settings: Extraction,
    progress: Callable[[int], Any] = lambda done: None,
    group: ProcessGroup = ALONE,
) -> None:
    """Describes, batch by batch, the views whose rows are not there yet.

    Batches are the same whichever rows are there, so what is described again is
    described with the same neighbours. Processes take them in turn, each splits its
    own over its devices, and the first writes them.

    Args:
      rows: where descriptors go; in the first process alone.
      describe: what `make_describe` made for the settings' scales.
      variables: the model's parameters and statistics.
      views: what to describe.
      photos: what `survey` said of the views.
      canvases: what `plan_canvases` made of their sizes.
      settings: how.
      progress: called with the number of views done since the last call.
      group: processes that describe a share each.

    Raises:
      UserError: if the model gives something other than numbers.
    """
    finished = group.broadcast({"rows": rows.finished})["rows"]
    batches = [b for c in canvases for b in c.batches(settings.batch_size)]
    left = [b for b in batches if not finished[list(b.rows)].all()]
    mine = left[group.index :: group.count]
    described = _describe_each(describe, variables, views, photos, mine, settings)
    for _ in left[:: group.count]:
        together = group.gather(next(described, {}))
        if group.first:
            # At the end there may be fewer batches than processes.
            progress(_keep(rows, photos, [batch for batch in together if batch]))


def _describe_each(
    describe: Describe,
    variables: Any,
    views: Sequence[View],
    photos: Survey,
    batches: Sequence[Canvas],
    settings: Extraction,
) -> Iterator[Arrays]:
    """Describes batches: rows [b], descriptors [b, d], bad ones among the rows, why."""
    sizes = photos.sizes
    by_row, by_scale, whole = placements(settings.batch_size, jax.local_devices())
    variables = jax.device_put(variables, whole)
    running: tuple[Canvas, dict[int, str], jax.Array] | None = None
    for batch, images, bad in load_batches(views, batches, sizes, settings.batch_size):
        padded = np.ones((settings.batch_size, 2), np.int32)
        padded[: len(batch.rows)] = sizes[list(batch.rows)]
        rescaled = np.stack([scaled_sizes(padded, scale) for scale in settings.scales])
        arrays = jax.device_put((images, padded, rescaled), (by_row, by_row, by_scale))
        following = batch, bad, describe(variables, *arrays)
        # The devices work on the next batch while this one is written.
        if running is not None:
            yield _in_arrays(*running)
        running = following
    if running is not None:
        yield _in_arrays(*running)


def _in_arrays(
    batch: Canvas, bad: Mapping[int, str], described: jax.Array | np.ndarray
) -> Arrays:
    return {
        "rows": np.array(batch.rows),
        "descriptors": np.array(described)[: len(batch.rows)],
        "bad": np.array(list(bad), np.int64),
        "why": np.array(list(bad.values()), np.str_),
    }


def placements(
    batch_size: int, devices: Sequence[Any]
) -> tuple[NamedSharding, NamedSharding, NamedSharding]:
    """Splits a batch over devices, over as many as divide it.

    Args:
      batch_size: views a batch.
      devices: there may be more than can be used.

    Returns:
      Where arrays [b, ...] live, arrays [scales, b, 2], and what all devices need.
    """
    used = max(n for n in range(1, len(devices) + 1) if batch_size % n == 0)
    mesh = Mesh(np.array(devices[:used]), ("views",))
    specs = PartitionSpec("views"), PartitionSpec(None, "views"), PartitionSpec()
    by_row, by_scale, whole = (NamedSharding(mesh, spec) for spec in specs)
    return by_row, by_scale, whole


def _keep(rows: Rows, photos: Survey, batches: Sequence[Arrays]) -> int:
    """Writes batches, NaN for what is bad in them; returns how many views they have."""
    names = ("rows", "descriptors", "bad", "why")
    mine, descriptors, bad, why = (
        np.concatenate([batch[name] for batch in batches]) for name in names
    )
    good = ~np.isin(mine, bad)
    wrong = mine[good & ~np.isfinite(descriptors).all(axis=1)]
    if len(wrong):
        raise UserError(
            f"the descriptor of {photos.images.names[wrong[0]]} is no numbers: the "
            "weights are damaged, or their training diverged"
        )
    descriptors[~good] = np.nan
    rows.write(mine, descriptors, dict(zip(bad.tolist(), why.tolist(), strict=True)))
    return len(mine)
