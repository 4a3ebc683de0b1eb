"""Matrix products and 1x1 convolutions, with gradients."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from tokret.shapes import Array, Float

# Cost of reading one value of a transposed matrix, in contiguous values.
STRIDED_READ_COST = 4


def precision_of(dtype: Any) -> jax.lax.Precision | None:
    """Returns the precision of products: float32 means float32, also on GPU and TPU.

    By default, accelerators compute float32 products in TF32 or in bfloat16 passes.
    """
    return None if jnp.dtype(dtype).itemsize < 4 else jax.lax.Precision.HIGHEST


def statistics_dtype(x: jax.Array) -> jnp.dtype:
    """Returns the dtype of sums over `x`: float32, or float64 in parity tests."""
    return jnp.promote_types(x.dtype, jnp.float32)


def einsum(equation: str, x: Array, y: Array, *, wide: bool = False) -> Array:
    """`jnp.einsum` in the precision of `x`; with `wide`, to the dtype of statistics."""
    return jnp.einsum(
        equation,
        x,
        y,
        precision=precision_of(x.dtype),
        preferred_element_type=statistics_dtype(x) if wide else None,
    )


def convolve(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "k k c1 d"],
    stride: int,
    padding: tuple[int, int] = (0, 0),
    groups: int = 1,
) -> Float[Array, "b h2 w2 d"]:
    """Convolves by XLA's own operation, with zeros before and after both sides."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [padding, padding],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
        precision=precision_of(x.dtype),
    )


def _matmul(
    x: Float[Array, "... c"], matrix: Float[Array, "c d"]
) -> Float[Array, "... d"]:
    if x.dtype.itemsize >= 4:
        return jnp.matmul(x, matrix, precision=precision_of(x.dtype))
    return jax.lax.platform_dependent(x, matrix, cpu=_float32_sums, default=jnp.matmul)


def _float32_sums(
    x: Float[Array, "... c"], matrix: Float[Array, "c d"]
) -> Float[Array, "... d"]:
    """A bfloat16 product that is rounded at the end, which XLA leaves to YNNPACK.

    Gain on a CPU with AMX: 1,230 instead of 213 GFLOP/s (docs/performance.md,
    "bfloat16 on a CPU that has units for it").
    """
    sums = jnp.matmul(x, matrix, preferred_element_type=jnp.float32)
    return sums.astype(x.dtype)


@jax.custom_vjp
def project(
    x: Float[Array, "... c"], matrix: Float[Array, "c d"]
) -> Float[Array, "... d"]:
    """Multiplies vectors by a matrix of the same dtype, from the right."""
    return _matmul(x, matrix)


def _sum_outer_products(
    rows: Float[Array, "n c"], columns: Float[Array, "n d"]
) -> Float[Array, "c d"]:
    dimensions, precision = (((0,), (0,)), ((), ())), precision_of(rows.dtype)
    return jax.lax.dot_general(rows, columns, dimensions, precision)


def _transpose_narrower(
    rows: Float[Array, "n c"], columns: Float[Array, "n d"]
) -> Float[Array, "c d"]:
    """Sums outer products; XLA's CPU backend transposes the first operand for it.

    With the narrower operand first that copy is smaller, but the result is transposed,
    and every reader of the gradient pays for strided reads: worthwhile only for many
    rows. Gain: a ResNet-50 step in 1.48 instead of 1.72 s (docs/performance.md, "The
    gradient of a matrix, the narrower operand first").
    """
    n, c = rows.shape
    d = columns.shape[1]
    if n * (c - d) <= STRIDED_READ_COST * c * d:
        return _sum_outer_products(rows, columns)
    # Without the barriers XLA would swap the operands back.
    swapped = jax.lax.optimization_barrier(_sum_outer_products(columns, rows))
    return jax.lax.optimization_barrier(swapped.T)


def _project_forward(x: Array, matrix: Array) -> tuple[Array, tuple[Array, Array]]:
    return _matmul(x, matrix), (x, matrix)


def _project_backward(
    saved: tuple[Float[Array, "... c"], Float[Array, "c d"]], g: Float[Array, "... d"]
) -> tuple[Float[Array, "... c"], Float[Array, "c d"]]:
    x, matrix = saved
    to_matrix = jax.lax.platform_dependent(
        x.reshape(-1, x.shape[-1]),
        g.reshape(-1, g.shape[-1]),
        cpu=_transpose_narrower,
        default=_sum_outer_products,
    )
    return _matmul(g, matrix.T), to_matrix


project.defvjp(_project_forward, _project_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv1x1(
    x: Float[Array, "b h w c"], kernel: Float[Array, "1 1 c d"], stride: int
) -> Float[Array, "b h2 w2 d"]:
    """A 1x1 convolution without padding: a matrix product, or on a TPU a convolution.

    Gain of products on a CPU: a descriptor of ResNet-50 in 0.61 instead of 0.69 s; of
    convolutions on a TPU: a step that accesses 1.14 instead of 1.26 GB an image, since
    products change layouts (docs/performance.md, "1x1 convolutions as matrix
    products").
    """
    return jax.lax.platform_dependent(
        x,
        kernel,
        tpu=functools.partial(convolve, stride=stride),
        default=functools.partial(_conv_project, stride=stride),
    )


def _conv_project(
    x: Float[Array, "b h w c"], kernel: Float[Array, "1 1 c d"], *, stride: int
) -> Float[Array, "b h2 w2 d"]:
    return project(_subsample(x, stride), kernel[0, 0])


def _subsample(x: Float[Array, "b h w c"], stride: int) -> Float[Array, "b h2 w2 c"]:
    return x if stride == 1 else x[:, ::stride, ::stride]


def _conv_forward(
    x: Array, kernel: Array, stride: int
) -> tuple[Array, tuple[Array, Array]]:
    return conv1x1(x, kernel, stride), (x, kernel)


def _conv_backward(
    stride: int, saved: tuple[Array, Array], g: Array
) -> tuple[Array, Array]:
    def by_convolution(x: Array, kernel: Array, g: Array) -> tuple[Array, Array]:
        (to_x,) = jax.linear_transpose(lambda x: convolve(x, kernel, stride), x)(g)
        to_kernel = jax.linear_transpose(lambda k: convolve(x, k, stride), kernel)
        return to_x, *to_kernel(g)

    def by_products(x: Array, kernel: Array, g: Array) -> tuple[Array, Array]:
        to_few, to_matrix = _project_backward((_subsample(x, stride), kernel[0, 0]), g)
        (to_x,) = jax.linear_transpose(lambda x: _subsample(x, stride), x)(to_few)
        return to_x, to_matrix[None, None]

    gradients: tuple[Array, Array] = jax.lax.platform_dependent(
        *saved, g, tpu=by_convolution, default=by_products
    )
    return gradients


conv1x1.defvjp(_conv_forward, _conv_backward)
