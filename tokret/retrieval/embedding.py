"""Padded batches of images -> descriptors, at several scales, in one program a canvas.

Every image of a batch is rescaled within its true size, so padding changes nothing.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tokret.models.layers import l2_normalise
from tokret.models.preprocessing import normalise
from tokret.models.retrieval_net import RetrievalNet
from tokret.runtime.compiler_options import inference_options
from tokret.shapes import Array, Float, Int, UInt8

# Variables, images [b, h, w, 3] uint8, their sizes [b, 2], and the sizes at each scale
# [s, b, 2] -> descriptors [b, d].
EmbedFn = Callable[..., jax.Array]


def interpolation(
    sizes: Int[Array, " b"], inputs: int, outputs: int, scale: float
) -> Float[Array, "b o i"]:
    """Makes the matrices that rescale one axis bilinearly, one an image.

    Half-pixel centres, no antialiasing, sampling step exactly 1 / scale, edges
    repeated: PyTorch's `interpolate(scale_factor=scale)`, within each true size. The
    canvas's side is `inputs` before and `outputs` after rescaling.
    """
    position = jnp.maximum((jnp.arange(outputs) + 0.5) / scale - 0.5, 0.0)
    last = sizes[:, None] - 1  # [b, 1]
    low = jnp.minimum(jnp.floor(position).astype(jnp.int32), last)  # [b, o]
    high = jnp.minimum(low + 1, last)
    fraction = position - jnp.floor(position)  # [o]
    columns = jnp.arange(inputs)
    at_low = (low[..., None] == columns) * (1 - fraction)[None, :, None]
    at_high = (high[..., None] == columns) * fraction[None, :, None]
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


def scaled_sizes(
    sizes: Int[np.ndarray, "b 2"], scales: Sequence[float]
) -> Int[np.ndarray, "s b 2"]:
    """Returns true sizes at each scale: floor(side * scale), in double precision."""
    scaled = [np.maximum(np.floor(sizes * scale), 1) for scale in scales]
    return np.stack(scaled).astype(np.int32)


def make_embed_fn(
    model: RetrievalNet, scales: Sequence[float], platform: str | None = None
) -> EmbedFn:
    """Jits multi-scale extraction: a descriptor per scale, then their normalised mean.

    On a CPU or GPU it has its own compiler options (those of jax's default backend
    where `platform` is None), so no other jit can call it.

    Returns:
      A function of (variables, images [b, h, w, 3] uint8, their sizes [b, 2], their
      `scaled_sizes` [s, b, 2], since only double precision rounds as PyTorch does) to
      descriptors [b, d].
    """

    def embed(
        variables: Any,
        images: UInt8[Array, "b h w 3"],
        sizes: Int[Array, "b 2"],
        scaled: Int[Array, "s b 2"],
    ) -> Float[Array, "b d"]:
        pixels = normalise(images, model.pixels)
        total: Any = 0.0
        for i, scale in enumerate(scales):
            inputs = pixels if scale == 1 else rescale(pixels, sizes, scale)
            result = model.apply(variables, inputs, scaled[i], train=False)
            total = total + result[0]
        return l2_normalise(total / len(scales))

    return jax.jit(embed, compiler_options=inference_options(model.dtype, platform))


def batch_shardings(
    batch_size: int, devices: Sequence[Any]
) -> tuple[NamedSharding, ...]:
    """Splits a batch over as many devices as divide it.

    Returns the shardings of arrays [b, ...], of arrays [s, b, 2], and of replicated
    arrays.
    """
    used = max(n for n in range(1, len(devices) + 1) if batch_size % n == 0)
    mesh = Mesh(np.array(devices[:used]), ("views",))
    specs = PartitionSpec("views"), PartitionSpec(None, "views"), PartitionSpec()
    return tuple(NamedSharding(mesh, spec) for spec in specs)
