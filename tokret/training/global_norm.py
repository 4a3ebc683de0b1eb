"""Norms of trees of arrays, such as a step's gradient, in few kernels on a GPU.

A ResNet-101's arrays, each summed up for itself, are 464 kernels of a GPU's step, most
of which take longer to begin than to run (docs/performance.md).
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from tokret.shapes import Array, Float

LONG = 2**22  # values from which on an array is summed up for itself


def norm(tree: Any) -> Float[Array, ""]:
    """Returns the Euclidean norm of all numbers of a tree."""
    leaves = [jnp.zeros((), jnp.float32), *jax.tree.leaves(tree)]
    dtype = jnp.result_type(*leaves)  # of both forms
    return jax.lax.platform_dependent(
        tree,
        cuda=lambda tree: norm_of_rows(tree).astype(dtype),
        default=lambda tree: optax.tree.norm(tree).astype(dtype),
    )


def norm_of_rows(tree: Any) -> Float[Array, ""]:
    """The same: first sums of rows, then one sum of what these gave."""
    squares = [jnp.square(leaf) for leaf in jax.tree.leaves(tree)]
    long = [jnp.sum(leaf) for leaf in squares if leaf.size >= LONG]
    rows = [
        (jnp.sum(leaf, -1) if leaf.ndim > 1 else leaf).reshape(-1)
        for leaf in squares
        if leaf.size < LONG
    ]
    # XLA would sum up what is joined apart again.
    joined = jax.lax.optimization_barrier(
        jnp.concatenate([jnp.zeros(0, jnp.float32), *rows])
    )
    return jnp.sqrt(sum(long, start=jnp.sum(joined)))
