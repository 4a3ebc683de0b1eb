"""Products of vectors with a matrix, and their gradients in the form that is fast.

XLA's CPU backend takes two to four times longer than need be over the matrix's gradient
as JAX derives it: it transposes the wider operand first.
"""

from typing import Any

import jax
import jax.numpy as jnp

from tokret.shapes import Array, Float

READ_ACROSS = 4  # what reading a matrix across costs, in values (docs/performance.md)


def precision_of(dtype: Any) -> jax.lax.Precision | None:
    """Returns the precision of products: float32 means float32, also on GPU and TPU.

    Accelerators compute float32 products in TF32 or bf16 passes unless told otherwise.
    """
    return None if jnp.dtype(dtype).itemsize < 4 else jax.lax.Precision.HIGHEST


def _multiply(
    x: Float[Array, "... c"], matrix: Float[Array, "c d"]
) -> Float[Array, "... d"]:
    if x.dtype.itemsize >= 4:
        return jnp.matmul(x, matrix, precision=precision_of(x.dtype))
    return jax.lax.platform_dependent(
        x, matrix, cpu=_by_float32_sums, default=jnp.matmul
    )


def _by_float32_sums(
    x: Float[Array, "... c"], matrix: Float[Array, "c d"]
) -> Float[Array, "... d"]:
    """Products of bfloat16, rounded at the end: so XLA gives them to YNNPACK.

    It has a processor's own instructions for them (docs/performance.md).
    """
    sums = jnp.matmul(x, matrix, preferred_element_type=jnp.float32)
    return sums.astype(x.dtype)


@jax.custom_vjp
def project(
    x: Float[Array, "... c"], matrix: Float[Array, "c d"]
) -> Float[Array, "... d"]:
    """Multiplies vectors by a matrix of the same dtype, from the right."""
    return _multiply(x, matrix)


def _sum_of_products(
    rows: Float[Array, "n c"], columns: Float[Array, "n d"]
) -> Float[Array, "c d"]:
    sums, precision = (((0,), (0,)), ((), ())), precision_of(rows.dtype)
    return jax.lax.dot_general(rows, columns, sums, precision)


def _narrow_first(
    rows: Float[Array, "n c"], columns: Float[Array, "n d"]
) -> Float[Array, "c d"]:
    n, c = rows.shape
    d = columns.shape[1]
    # Its operand's transpose is that much smaller, but each reader of the gradient then
    # reads it across, at several times the cost of a value.
    if n * (c - d) <= READ_ACROSS * c * d:
        return _sum_of_products(rows, columns)
    # XLA would turn the product around again otherwise.
    swapped = jax.lax.optimization_barrier(_sum_of_products(columns, rows))
    return jax.lax.optimization_barrier(swapped.T)


def _forward(x: Array, matrix: Array) -> tuple[Array, tuple[Array, Array]]:
    return _multiply(x, matrix), (x, matrix)


def project_back(
    saved: tuple[Float[Array, "... c"], Float[Array, "c d"]], g: Float[Array, "... d"]
) -> tuple[Float[Array, "... c"], Float[Array, "c d"]]:
    """The gradients of `project` by vectors and matrix, given that by its products."""
    x, matrix = saved
    to_matrix = jax.lax.platform_dependent(
        x.reshape(-1, x.shape[-1]),
        g.reshape(-1, g.shape[-1]),
        cpu=_narrow_first,
        default=_sum_of_products,
    )
    return _multiply(g, matrix.T), to_matrix


project.defvjp(_forward, project_back)
