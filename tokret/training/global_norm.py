"""Norms of trees of arrays, such as gradients, in few kernels on a GPU.

Summing each array of a ResNet-101 by itself takes 464 kernels of a GPU's step, most of
which take longer to launch than to run (docs/performance.md).
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from tokret.shapes import Array, Float

LARGE = 2**22  # values of an array that is summed by itself


def norm(tree: Any) -> Float[Array, ""]:
    """Returns the Euclidean norm of all numbers of a tree."""
    leaves = [jnp.zeros((), jnp.float32), *jax.tree.leaves(tree)]
    dtype = jnp.result_type(*leaves)  # of both branches
    return jax.lax.platform_dependent(
        tree,
        cuda=lambda tree: norm_of_rows(tree).astype(dtype),
        default=lambda tree: optax.tree.norm(tree).astype(dtype),
    )


def norm_of_rows(tree: Any) -> Float[Array, ""]:
    """Returns the same from sums of rows, and one sum of these."""
    squares = [jnp.square(leaf) for leaf in jax.tree.leaves(tree)]
    large = [jnp.sum(leaf) for leaf in squares if leaf.size >= LARGE]
    rows = [
        (jnp.sum(leaf, -1) if leaf.ndim > 1 else leaf).reshape(-1)
        for leaf in squares
        if leaf.size < LARGE
    ]
    # XLA would otherwise sum the concatenated parts one by one.
    joined = jax.lax.optimization_barrier(
        jnp.concatenate([jnp.zeros(0, jnp.float32), *rows])
    )
    return jnp.sqrt(sum(large, start=jnp.sum(joined)))
