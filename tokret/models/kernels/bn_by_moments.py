"""A 1x1 convolution and its batch norm, from moments of what is convolved.

The statistics of y = x W, its normalisation's gradient too, follow from moments of x:
mean(y) = mean(x) W, var(y) = diag(W' cov(x) W), and sum(g * y) = diag(W' sum(x g')) for
a gradient g. So y need not be looked at, which costs most where it is wider than x
(docs/performance.md). Products of two bfloat16 are exact in float32, where moments are
summed up; those of two float32 are not, and cov(x) would lose digits by the square of
mean over deviation.

On a TPU, which makes batch norms part of convolutions, y is not even written. A GPU has
to write it, rounded, and looks at what it wrote; its gradient alone is by moments.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from tokret.models.kernels.batch_norm import by_sums
from tokret.models.kernels.matmul import precision_of
from tokret.models.kernels.pointwise import mix_channels
from tokret.models.normalisation import Normalised, normalised, statistics_dtype
from tokret.shapes import Array, Float

Gradients = tuple[Array, Array, Array, Array]  # by x, kernel, scale, bias


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def by_moments(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "1 1 c d"],
    scale: Float[Array, " d"],
    bias: Float[Array, " d"],
    epsilon: float,
) -> Normalised:
    """Convolves and normalises without looking at what was convolved, for a TPU.

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


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def back_by_moments(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "1 1 c d"],
    scale: Float[Array, " d"],
    bias: Float[Array, " d"],
    shift: Float[Array, " d"],
    epsilon: float,
) -> Normalised:
    """As `by_moments`, of which only the gradient does not look, for a GPU.

    Args:
      x: as for `by_moments`.
      kernel: likewise.
      scale: likewise.
      bias: likewise.
      shift: the running mean, about which sums are taken.
      epsilon: likewise.
    """
    return _look(x, kernel, scale, bias, shift, epsilon)[0]


class _Given(NamedTuple):
    """What a gradient wants of the forward pass."""

    x: Float[Array, "b h w c"]
    kernel: Float[Array, "1 1 c d"]
    scale: Float[Array, " d"]
    bias: Float[Array, " d"]
    var: Float[Array, " d"]


class _Moments(NamedTuple):
    """Of vectors, their mean and that of their products."""

    mean: Float[Array, " c"]
    second: Float[Array, "c c"]

    def covariance(self) -> Float[Array, "c c"]:
        return self.second - jnp.outer(self.mean, self.mean)


class _Products(NamedTuple):
    """What is multiplied, in the form that a device is fast at.

    Attributes:
      of_all: sums x y' over positions, [b, h, w, c] and [b, h, w, d] in one dtype to
        [c, d] in that of statistics.
      added: x B + g A - sums for every position, the second part being the larger.
      between: multiplies small matrices of the statistics' dtype.
    """

    of_all: Callable[[Array, Array], Array]
    added: Callable[[Array, Array, Array, Array, Array], Array]
    between: Callable[[Array, Array], Array]


_exact = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


def _convolve(
    x: Float[Array, "b h w c"], matrix: Float[Array, "c d"]
) -> Float[Array, "b h w d"]:
    """In the dtype of statistics: what is added to it is not lost in rounding."""
    return jax.lax.conv_general_dilated(
        x,
        matrix[None, None],
        (1, 1),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=precision_of(x.dtype),
        preferred_element_type=statistics_dtype(x),
    )


def _convolve_all(
    x: Float[Array, "b h w c"], y: Float[Array, "b h w d"]
) -> Float[Array, "c d"]:
    """As a convolution with `y` for its kernel."""
    return jax.lax.conv_general_dilated(
        x,
        y,
        (1, 1),
        "VALID",
        dimension_numbers=("CHWN", "IHWO", "HWNC"),
        precision=precision_of(x.dtype),
        preferred_element_type=statistics_dtype(x),
    )[0, 0]


def _add_convolutions(
    x: Array, by_x: Array, g: Array, by_g: Array, sums: Array
) -> Float[Array, "b h w c"]:
    # The smaller part may be rounded on its way, and goes through memory; the larger
    # one may not: what is added to it then would be lost.
    by_mean = (_convolve(x, by_x) - sums).astype(x.dtype)
    return (_convolve(g, by_g) + by_mean).astype(x.dtype)


def _multiply_all(
    x: Float[Array, "b h w c"], y: Float[Array, "b h w d"]
) -> Float[Array, "c d"]:
    return jax.lax.dot_general(
        x.reshape(-1, x.shape[-1]),
        y.reshape(-1, y.shape[-1]),
        (((0,), (0,)), ((), ())),
        precision=precision_of(x.dtype),
        preferred_element_type=statistics_dtype(x),
    )


def _add_products(
    x: Array, by_x: Array, g: Array, by_g: Array, sums: Array
) -> Float[Array, "b h w c"]:
    # Written so that cuBLAS adds all of it in float32 before it rounds: the first
    # product while the second is written, a part of the sums with each.
    multiply = functools.partial(jnp.matmul, precision=precision_of(x.dtype))
    most, rest = _in_two_parts(-sums, x.dtype)
    return (multiply(g, by_g) + (multiply(x, by_x) + most)) + rest


def _in_two_parts(
    vector: Float[Array, " c"], dtype: jnp.dtype
) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
    """A vector rounded to a dtype, and what that leaves, rounded too."""
    kind = jnp.finfo(dtype)
    # Not a cast and back, which XLA would leave out.
    most = jax.lax.reduce_precision(vector, kind.nexp, kind.nmant)
    return most.astype(dtype), (vector - most).astype(dtype)


CONVOLUTIONS = _Products(_convolve_all, _add_convolutions, _exact)
# Of bfloat16, what small products give is rounded to that: TF32 is enough for them, in
# a tenth of the time.
DOTS = _Products(_multiply_all, _add_products, jnp.matmul)


def _forward(
    x: Array, kernel: Array, scale: Array, bias: Array, epsilon: float
) -> tuple[Normalised, tuple[_Given, _Moments]]:
    matrix, moments = _matrix(kernel), _moments_of(x, CONVOLUTIONS)
    mean = _exact(moments.mean, matrix)
    spread = _exact(moments.covariance(), matrix)
    var = jnp.maximum(jnp.sum(matrix * spread, axis=0), 0.0)
    y = normalised(_convolve(x, kernel[0, 0]), scale, bias, mean, var, epsilon)
    return (y.astype(x.dtype), mean, var), (
        _Given(x, kernel, scale, bias, var),
        moments,
    )


def _backward(
    epsilon: float, saved: tuple[_Given, _Moments], gradients: Normalised
) -> Gradients:
    return _gradients(*saved, gradients[0], epsilon, CONVOLUTIONS)


by_moments.defvjp(_forward, _backward)


def _look(
    x: Array, kernel: Array, scale: Array, bias: Array, shift: Array, epsilon: float
) -> tuple[Normalised, tuple[_Given, Array]]:
    y = mix_channels(x, kernel, 1)
    found: Normalised = by_sums(y, scale, bias, shift, epsilon, False)
    return found, (_Given(x, kernel, scale, bias, found[2]), shift)


def _look_back(
    epsilon: float, saved: tuple[_Given, Array], gradients: Normalised
) -> tuple[Array, ...]:
    given, shift = saved
    moments = _moments_of(given.x, DOTS)
    found = _gradients(given, moments, gradients[0], epsilon, DOTS)
    return *found, jnp.zeros_like(shift)


back_by_moments.defvjp(_look, _look_back)


def _moments_of(x: Float[Array, "b h w c"], products: _Products) -> _Moments:
    count = x.size // x.shape[-1]
    mean = jnp.mean(x.astype(statistics_dtype(x)), (0, 1, 2))
    return _Moments(mean, products.of_all(x, x) / count)


def _matrix(kernel: Float[Array, "1 1 c d"]) -> Float[Array, "c d"]:
    return kernel[0, 0].astype(statistics_dtype(kernel))


def _gradients(
    given: _Given,
    moments: _Moments,
    g: Float[Array, "b h w d"],
    epsilon: float,
    products: _Products,
) -> Gradients:
    """From the gradient by the normalised outputs."""
    x, dtype = given.x, statistics_dtype(given.x)
    count = x.size // x.shape[-1]
    matrix = _matrix(given.kernel)
    mean = _exact(moments.mean, matrix)
    root = jax.lax.rsqrt(given.var + epsilon)
    with_g = products.of_all(x, g)
    to_bias = jnp.sum(g.astype(dtype), (0, 1, 2))
    to_scale = root * (jnp.sum(matrix * with_g, axis=0) - mean * to_bias)
    # The gradient by y is a (g - mean(g)) + b (y - mean(y)), with a and b of each
    # channel, and y = x W. Its sum is zero, whatever the matrices are rounded to.
    a = given.scale * root
    b = -a * root * to_scale / count
    spread = products.between(moments.covariance(), matrix)
    to_matrix = a * (with_g - jnp.outer(moments.mean, to_bias)) + count * b * spread
    by_g = (a * matrix).T.astype(x.dtype)
    by_x = products.between(b * matrix, matrix.T).astype(x.dtype)
    sums = _exact(to_bias / count, by_g.astype(dtype)) + _exact(
        moments.mean, by_x.astype(dtype)
    )
    to_x = products.added(x, by_x, g, by_g, sums)
    return (
        to_x,
        to_matrix.astype(given.kernel.dtype)[None, None],
        to_scale.astype(given.scale.dtype),
        to_bias.astype(given.bias.dtype),
    )
