"""Products of vectors with a matrix, and their gradients in the form that is fast.

XLA's CPU backend takes two to four times longer than need be over the matrix's gradient
as it is derived: it transposes the wider operand first. Accelerators get the derived
one.
"""

from typing import Any

import jax
import jax.numpy as jnp

from tokret.shapes import Array, Float


def precision_of(dtype: Any) -> jax.lax.Precision | None:
    """Returns the precision of products: float32 means float32, also on GPU and TPU.

    Accelerators compute float32 products in TF32 or bf16 passes unless told otherwise.
    """
    return None if jnp.dtype(dtype).itemsize < 4 else jax.lax.Precision.HIGHEST


def _multiply(
    x: Float[Array, "... c"], matrix: Float[Array, "c d"]
) -> Float[Array, "... d"]:
    return jnp.matmul(x, matrix, precision=precision_of(x.dtype))


@jax.custom_vjp
def project(
    x: Float[Array, "... c"], matrix: Float[Array, "c d"]
) -> Float[Array, "... d"]:
    """Multiplies vectors by a matrix of the same dtype, from the right."""
    return _multiply(x, matrix)


def _matrix_gradient(
    x: Float[Array, "... c"], g: Float[Array, "... d"]
) -> Float[Array, "c d"]:
    """Sums the outer products of inputs and gradients; the narrower one comes first."""
    rows, columns = x.reshape(-1, x.shape[-1]), g.reshape(-1, g.shape[-1])
    sums, precision = (((0,), (0,)), ((), ())), precision_of(x.dtype)
    if rows.shape[1] <= columns.shape[1]:
        return jax.lax.dot_general(rows, columns, sums, precision)
    swapped = jax.lax.dot_general(columns, rows, sums, precision)
    # Otherwise XLA turns the product around again, or each reader the result.
    swapped = jax.lax.optimization_barrier(swapped)
    return jax.lax.optimization_barrier(swapped.T)


def _forward(x: Array, matrix: Array) -> tuple[Array, tuple[Array, Array]]:
    return _multiply(x, matrix), (x, matrix)


def _backward(saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    def derived(x: Array, matrix: Array, g: Array) -> tuple[Array, Array]:
        to_x, to_matrix = jax.vjp(_multiply, x, matrix)[1](g)
        return to_x, to_matrix

    def ordered(x: Array, matrix: Array, g: Array) -> tuple[Array, Array]:
        to_x = jnp.matmul(g, matrix.T, precision=precision_of(x.dtype))
        return to_x, _matrix_gradient(x, g)

    gradients: tuple[Array, Array] = jax.lax.platform_dependent(
        *saved, g, cpu=ordered, default=derived
    )
    return gradients


project.defvjp(_forward, _backward)
