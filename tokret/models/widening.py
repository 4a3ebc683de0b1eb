"""A 1x1 convolution to more channels and its batch norm, as a bottleneck ends.

A training step on a TPU is bound by memory, and what a bottleneck widens is most of it.
The statistics of y = x W, its normalisation's gradient too, follow from moments of x,
which has a quarter of the channels (half before a shortcut that shrinks): mean(y) =
mean(x) W, var(y) = diag(W' cov(x) W), and sum(g * y) = diag(W' sum(x g')) for a
gradient g. So y need not be written before it is normalised, and is never read again
(docs/performance.md). It is done so in bfloat16 on a TPU. Products of two bfloat16 are
exact in float32; those of two float32 are not, and cov(x) would lose digits by the
square of mean over deviation. Elsewhere y is computed and looked at.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from tokret.models.layers import he_normal
from tokret.models.normalisation import (
    Normalising,
    batch_statistics,
    normalised,
    statistics_dtype,
)
from tokret.models.pointwise import mix_channels
from tokret.models.products import precision_of
from tokret.shapes import Array, Float

# What is normalised, and its mean and biased variance before that.
Normalised = tuple[Float[Array, "b h w d"], Float[Array, " d"], Float[Array, " d"]]
MOMENTS = (jnp.bfloat16,)  # dtypes of which a TPU takes moments
exact = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


def by_outputs(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "1 1 c d"],
    scale: Float[Array, " d"],
    bias: Float[Array, " d"],
    shift: Float[Array, " d"],
    epsilon: float,
) -> Normalised:
    """Convolves, and normalises by the outputs' own mean and biased variance.

    Args:
      x: inputs.
      kernel: of the convolution.
      scale: of the batch norm.
      bias: of the batch norm.
      shift: the running mean.
      epsilon: added to the variance.

    Returns:
      The normalised outputs, and their mean and variance before that.
    """
    y = mix_channels(x, kernel, 1)
    mean, var = batch_statistics(y, shift)
    return normalised(y, scale, bias, mean, var, epsilon), mean, var


def _product(x: Float[Array, "b h w c"], matrix: Float[Array, "c d"]) -> Array:
    """Multiplies every position by a matrix, rounded to the dtype of `x`, [b, h, w, d].

    The result has the dtype of statistics: what is added to it is not lost in rounding.
    """
    return jax.lax.conv_general_dilated(
        x,
        matrix[None, None].astype(x.dtype),
        (1, 1),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=precision_of(x.dtype),
        preferred_element_type=statistics_dtype(x),
    )


def _moments(
    x: Float[Array, "b h w c"], y: Float[Array, "b h w d"]
) -> Float[Array, "c d"]:
    """Sums x y' over positions, as a convolution with `y` for its kernel."""
    return jax.lax.conv_general_dilated(
        x,
        y,
        (1, 1),
        "VALID",
        dimension_numbers=("CHWN", "IHWO", "HWNC"),
        precision=precision_of(x.dtype),
        preferred_element_type=statistics_dtype(x),
    )[0, 0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def by_moments(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "1 1 c d"],
    scale: Float[Array, " d"],
    bias: Float[Array, " d"],
    epsilon: float,
) -> Normalised:
    """As `by_outputs`, from the first two moments of the inputs.

    No gradient enters by the mean and the variance: they are for running statistics.

    Args:
      x: inputs; outputs have their dtype, statistics that of `statistics_dtype`.
      kernel: of the convolution, in the dtype of `x`.
      scale: of the batch norm.
      bias: of the batch norm.
      epsilon: added to the variance.

    Returns:
      The normalised outputs, and their mean and variance before that.
    """
    return _forward(x, kernel, scale, bias, epsilon)[0]


def _forward(
    x: Array, kernel: Array, scale: Array, bias: Array, epsilon: float
) -> tuple[Normalised, tuple[Array, ...]]:
    dtype = statistics_dtype(x)
    count = x.size // x.shape[-1]
    matrix = kernel[0, 0].astype(dtype)
    centre = jnp.mean(x.astype(dtype), (0, 1, 2))
    second = _moments(x, x) / count
    mean = exact(centre, matrix)
    spread = exact(second - jnp.outer(centre, centre), matrix)
    var = jnp.maximum(jnp.sum(matrix * spread, axis=0), 0.0)
    y = normalised(_product(x, kernel[0, 0]), scale, bias, mean, var, epsilon)
    return (y.astype(x.dtype), mean, var), (x, kernel, scale, mean, var, centre, second)


def _backward(
    epsilon: float, saved: tuple[Array, ...], gradients: Normalised
) -> tuple[Array, Array, Array, Array]:
    x, kernel, scale, mean, var, centre, second = saved
    g, dtype = gradients[0], statistics_dtype(x)
    count = x.size // x.shape[-1]
    matrix = kernel[0, 0].astype(dtype)
    root = jax.lax.rsqrt(var + epsilon)
    products = _moments(x, g)
    to_bias = jnp.sum(g.astype(dtype), (0, 1, 2))
    to_scale = root * (jnp.sum(matrix * products, axis=0) - mean * to_bias)
    # The gradient by y is a (g - mean(g)) + b (y - mean(y)), with a and b of each
    # channel, and y = x W. Its sum is zero, whatever the matrices are rounded to.
    a = scale * root
    b = -a * root * to_scale / count
    to_matrix = a * (products - jnp.outer(centre, to_bias)) + count * b * exact(
        second - jnp.outer(centre, centre), matrix
    )
    by_g = (a * matrix).T.astype(x.dtype)
    by_x = exact(b * matrix, matrix.T).astype(x.dtype)
    sums = exact(to_bias / count, by_g.astype(dtype)) + exact(
        centre, by_x.astype(dtype)
    )
    # The smaller part may be rounded on its way, and goes through memory; the larger
    # one may not: what is added to it then would be lost.
    by_mean = (_product(x, by_x) - sums).astype(x.dtype)
    to_x = (_product(g, by_g) + by_mean).astype(x.dtype)
    return to_x, to_matrix.astype(kernel.dtype)[None, None], to_scale, to_bias


by_moments.defvjp(_forward, _backward)


class _Kernel(nn.Module):
    """The kernel of `PointwiseConv`, by the same name, without the convolution."""

    channels: int

    @nn.compact
    def __call__(self, inputs: int) -> Float[Array, "1 1 c d"]:
        shape = (1, 1, inputs, self.channels)
        return jnp.asarray(self.param("kernel", he_normal, shape, jnp.float32))


class _NormAfter(Normalising):
    """A batch norm that is given a convolution's input and kernel."""

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        kernel: Float[Array, "1 1 c d"],
        *,
        train: bool,
    ) -> Float[Array, "b h w d"]:
        scale, bias, (mean, var) = self.of_channels(kernel.shape[-1])
        if not train:
            y = mix_channels(x, kernel, 1)
            return normalised(y, scale, bias, mean, var, self.epsilon)
        by_y = functools.partial(by_outputs, epsilon=self.epsilon)
        y, mean, var = jax.lax.platform_dependent(
            *(x, kernel, scale, bias, mean),
            tpu=self._by_moments if x.dtype in MOMENTS else by_y,
            default=by_y,
        )
        self.keep(mean, var, x.size // x.shape[-1])
        return y

    def _by_moments(
        self, x: Array, kernel: Array, scale: Array, bias: Array, shift: Array
    ) -> Normalised:
        del shift  # only sums over outputs want it
        found: Normalised = by_moments(x, kernel, scale, bias, self.epsilon)
        return found


def widen(
    x: Float[Array, "b h w c"],
    channels: int,
    dtype: Any,
    conv: str,
    norm: str,
    *,
    train: bool,
) -> Float[Array, "b h w d"]:
    """Convolves to more channels and normalises.

    The layers belong to the module that calls it.

    Args:
      x: inputs.
      channels: of the outputs.
      dtype: dtype of the computation.
      conv: name of the convolution.
      norm: name of the batch norm.
      train: whether the batch's own statistics are used.
    """
    kernel = _Kernel(channels, name=conv)(x.shape[-1]).astype(dtype)
    return _NormAfter(name=norm)(x.astype(dtype), kernel, train=train)
