"""Batch norm of a 1x1 convolution by moments of the convolution's input.

The statistics of y = x W and the gradient of its normalisation follow from moments of
x: mean(y) = mean(x) W, var(y) = diag(W' cov(x) W), and sum(g * y) = diag(W' sum(x g'))
for a gradient g. So y need not be read, which saves most where it is wider than x.
Products of two bfloat16 are exact in float32, in which moments are summed up; those of
two float32 are not, and cov(x) would lose digits by the square of mean over deviation.

On a TPU, which fuses batch norms into convolutions, y is not even written. A GPU has to
write it, rounded, and takes statistics of what it wrote; only its gradient is by
moments.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from tokret.models.kernels.batch_norm import Normalised, batch_norm_fused, normalise
from tokret.models.kernels.matmul import conv1x1, precision_of, statistics_dtype
from tokret.shapes import Array, Float

Batch = Float[Array, "b h w c"]
Kernel = Float[Array, "1 1 c d"]
Vector = Float[Array, " d"]
Gradients = tuple[Array, Array, Array, Array]  # by x, kernel, scale, bias
Moments = tuple[Float[Array, " c"], Float[Array, "c c"]]  # mean and covariance


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def bn_by_moments(
    x: Batch, kernel: Kernel, scale: Vector, bias: Vector, epsilon: float
) -> Normalised:
    """`expand_conv_bn` for a TPU: convolves and normalises without reading outputs.

    No gradient flows through the mean and the variance, which are for running
    statistics.
    """
    return _forward(x, kernel, scale, bias, epsilon)[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def bn_grad_by_moments(
    x: Batch, kernel: Kernel, scale: Vector, bias: Vector, shift: Vector, epsilon: float
) -> Normalised:
    """`expand_conv_bn` for a GPU: only the gradient does not read outputs."""
    return _forward_gpu(x, kernel, scale, bias, shift, epsilon)[0]


class _Products(NamedTuple):
    """The products, in the form that a platform is fast at."""

    # Sums x y' over positions, in the dtype of statistics, to [c, d].
    outer_sum: Callable[[Array, Array], Array]
    # x B + g A - sums for every position; the second term is the larger one.
    combine: Callable[[Array, Array, Array, Array, Array], Array]
    # Multiplies small matrices of the statistics' dtype.
    small: Callable[[Array, Array], Array]


_exact = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


def _wide_matrix(kernel: Float[Array, "1 1 c d"]) -> Float[Array, "c d"]:
    return kernel[0, 0].astype(statistics_dtype(kernel))


def _wide_conv(
    x: Array, y: Array, dimension_numbers: tuple[str, str, str]
) -> Float[Array, "..."]:
    """A convolution in the dtype of statistics: sums with it are rounded once."""
    return jax.lax.conv_general_dilated(
        x,
        y,
        (1, 1),
        "VALID",
        dimension_numbers=dimension_numbers,
        precision=precision_of(x.dtype),
        preferred_element_type=statistics_dtype(x),
    )


def _convolve(
    x: Float[Array, "b h w c"], matrix: Float[Array, "c d"]
) -> Float[Array, "b h w d"]:
    return _wide_conv(x, matrix[None, None], ("NHWC", "HWIO", "NHWC"))


def _outer_sum_by_convolution(
    x: Float[Array, "b h w c"], y: Float[Array, "b h w d"]
) -> Float[Array, "c d"]:
    # A convolution with `y` as its kernel: [c, h, w, b] * [b, h, w, d] -> [1, 1, c, d].
    return _wide_conv(x, y, ("CHWN", "IHWO", "HWNC"))[0, 0]


def _combine_convolutions(
    x: Array, by_x: Array, g: Array, by_g: Array, sums: Array
) -> Float[Array, "b h w c"]:
    # The smaller term goes through memory and may be rounded for it; if the larger one
    # was rounded first, what is added to it would be lost.
    by_mean = (_convolve(x, by_x) - sums).astype(x.dtype)
    return (_convolve(g, by_g) + by_mean).astype(x.dtype)


def _outer_sum_by_product(
    x: Float[Array, "b h w c"], y: Float[Array, "b h w d"]
) -> Float[Array, "c d"]:
    return jax.lax.dot_general(
        x.reshape(-1, x.shape[-1]),
        y.reshape(-1, y.shape[-1]),
        (((0,), (0,)), ((), ())),
        precision=precision_of(x.dtype),
        preferred_element_type=statistics_dtype(x),
    )


def _combine_products(
    x: Array, by_x: Array, g: Array, by_g: Array, sums: Array
) -> Float[Array, "b h w c"]:
    # In this order cuBLAS adds everything in float32 before it rounds: the first
    # product while the second is written, a part of the sums with each.
    multiply = functools.partial(jnp.matmul, precision=precision_of(x.dtype))
    high, low = _split(-sums, x.dtype)
    return (multiply(g, by_g) + (multiply(x, by_x) + high)) + low


def _split(
    vector: Float[Array, " c"], dtype: jnp.dtype
) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
    """Splits a vector into its value rounded to a dtype and the rounded remainder."""
    kind = jnp.finfo(dtype)
    # Not a cast and the cast back, which XLA removes.
    high = jax.lax.reduce_precision(vector, kind.nexp, kind.nmant)
    return high.astype(dtype), (vector - high).astype(dtype)


TPU_PRODUCTS = _Products(_outer_sum_by_convolution, _combine_convolutions, _exact)
# Small products of bfloat16 are rounded to bfloat16 afterwards: TF32 is enough for
# them, in a tenth of the time.
GPU_PRODUCTS = _Products(_outer_sum_by_product, _combine_products, jnp.matmul)


def _forward(
    x: Array, kernel: Array, scale: Array, bias: Array, epsilon: float
) -> tuple[Normalised, tuple[tuple[Array, ...], Moments]]:
    matrix, moments = _wide_matrix(kernel), _moments(x, TPU_PRODUCTS)
    mean = _exact(moments[0], matrix)
    spread = _exact(moments[1], matrix)
    var = jnp.maximum(jnp.sum(matrix * spread, axis=0), 0.0)
    y = normalise(_convolve(x, kernel[0, 0]), scale, bias, mean, var, epsilon)
    return (y.astype(x.dtype), mean, var), ((x, kernel, scale, bias, var), moments)


def _backward(
    epsilon: float, saved: tuple[tuple[Array, ...], Moments], gradients: Normalised
) -> Gradients:
    arrays, moments = saved
    return _gradients(arrays, moments, gradients[0], epsilon, TPU_PRODUCTS)


bn_by_moments.defvjp(_forward, _backward)


def _forward_gpu(
    x: Array, kernel: Array, scale: Array, bias: Array, shift: Array, epsilon: float
) -> tuple[Normalised, tuple[Array, ...]]:
    y = conv1x1(x, kernel, 1)
    result: Normalised = batch_norm_fused(y, scale, bias, shift, epsilon, False)
    return result, (x, kernel, scale, bias, result[2], shift)


def _backward_gpu(
    epsilon: float, saved: tuple[Array, ...], gradients: Normalised
) -> tuple[Array, ...]:
    *arrays, shift = saved
    moments = _moments(arrays[0], GPU_PRODUCTS)
    result = _gradients(arrays, moments, gradients[0], epsilon, GPU_PRODUCTS)
    return *result, jnp.zeros_like(shift)


bn_grad_by_moments.defvjp(_forward_gpu, _backward_gpu)


def _moments(x: Float[Array, "b h w c"], products: _Products) -> Moments:
    mean = jnp.mean(x.astype(statistics_dtype(x)), (0, 1, 2))
    second = products.outer_sum(x, x) / (x.size // x.shape[-1])
    return mean, second - jnp.outer(mean, mean)


def _gradients(
    saved: Sequence[Array],
    moments: Moments,
    g: Float[Array, "b h w d"],
    epsilon: float,
    products: _Products,
) -> Gradients:
    """The gradients, given that by the normalised outputs."""
    x, kernel, scale, bias, var = saved
    dtype, count = statistics_dtype(x), x.size // x.shape[-1]
    matrix, (mean_x, covariance) = _wide_matrix(kernel), moments
    mean = _exact(mean_x, matrix)
    root = jax.lax.rsqrt(var + epsilon)
    with_g = products.outer_sum(x, g)
    to_bias = jnp.sum(g.astype(dtype), (0, 1, 2))
    to_scale = root * (jnp.sum(matrix * with_g, axis=0) - mean * to_bias)
    # The gradient by y is a (g - mean(g)) + b (y - mean(y)), with a and b of each
    # channel, and y = x W. Its sum is zero, whatever the matrices are rounded to.
    a = scale * root
    b = -a * root * to_scale / count
    spread = products.small(covariance, matrix)
    to_matrix = a * (with_g - jnp.outer(mean_x, to_bias)) + count * b * spread
    by_g = (a * matrix).T.astype(x.dtype)
    by_x = products.small(b * matrix, matrix.T).astype(x.dtype)
    sums = _exact(to_bias / count, by_g.astype(dtype))
    sums = sums + _exact(mean_x, by_x.astype(dtype))
    return (
        products.combine(x, by_x, g, by_g, sums),
        to_matrix.astype(kernel.dtype)[None, None],
        to_scale.astype(scale.dtype),
        to_bias.astype(bias.dtype),
    )
