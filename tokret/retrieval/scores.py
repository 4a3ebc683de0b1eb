"""Scores of queries with one block of a database: dot products, or sums from tables.

One program computes the scores of every block: float32 products of one pair may differ
in the last bit between programs, and what is compared must be the same number.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from tokret.retrieval.blocks import ALIGNMENT
from tokret.runtime.processor import multiplies_bfloat16
from tokret.shapes import Array, Shaped

# Products of two int8 numbers, 127 * 127 at most, summed over this many dimensions stay
# below 2**24: float32 holds every partial sum exactly, in whatever order.
EXACT_DIMS = 1024
TILE = 2048  # rows of which a cast to bfloat16 still lies in a CPU's cache (4 MiB)

Multiply = Callable[[Array, Array], Array]  # queries [q, d] and items [b, d] -> [q, b]


def queries_like(
    queries: Shaped[Array | np.ndarray, "q ..."], dtype: np.dtype
) -> Shaped[np.ndarray, "q ..."]:
    """Queries in the form that a database of some dtype is asked in.

    Args:
      queries: [Q, D] descriptors; of product codes [Q, M, 256] tables.
      dtype: of the database's blocks.

    Returns:
      The same in float32, or int8 as they were given.

    Raises:
      ValueError: the database is int8 and the queries are not, or the reverse; or the
        database are product codes and the queries no tables, or the reverse.
    """
    asked = np.asarray(queries)
    if (asked.ndim == 3) != (dtype == np.uint8):
        raise ValueError(
            f"queries have shape {asked.shape} and the database is {dtype}: product "
            "codes, uint8, are searched by tables [queries, codes, 256]"
        )
    if (asked.dtype == np.int8) != (dtype == np.int8):
        raise ValueError(
            f"queries are {asked.dtype} and the database {dtype}: int8 is searched by "
            "int8"
        )
    return asked if asked.dtype == np.int8 else asked.astype(np.float32)


@jax.jit
def block_scores(
    queries: Shaped[Array, "q ..."], block: Shaped[Array, "b d"]
) -> Shaped[Array, "q b"]:
    """Scores of a block's items for each query.

    Args:
      queries: [Q, D] float32, or int8 for an int8 block; for one of product codes
        [Q, M, 256] float32, what each code of each place adds.
      block: [B, D] float32, bfloat16 or int8; or [B, M] uint8 product codes.

    Returns:
      [Q, B] float32; int32 and exact for an int8 block. A row of NaN, which stands for
      an image that could not be described, scores lower than any other.
    """
    if block.dtype == jnp.int8:
        exact = _exact_by_bfloat16 if multiplies_bfloat16() else _exact_by_float32
        return jax.lax.platform_dependent(queries, block, cpu=exact, default=_by_int32)
    if block.dtype == jnp.uint8:
        return _by_tables(queries, block)
    if block.dtype == jnp.float32:
        scores = jax.lax.platform_dependent(
            queries, block, cpu=_by_vectors, default=_widened
        )
    else:
        scores = jax.lax.platform_dependent(
            *(queries, block),
            cpu=_in_three_parts
            if multiplies_bfloat16() and len(queries) > 1
            else _widened_in_tiles,
            cuda=_in_three_parts,
            default=_widened,
        )
    # Not -inf, which stands for what is not there.
    return jnp.where(jnp.isnan(scores), jnp.finfo(scores.dtype).min, scores)


def _by_int32(
    queries: Shaped[Array, "q d"], block: Shaped[Array, "b d"]
) -> Shaped[Array, "q b"]:
    return jnp.matmul(queries, block.T, preferred_element_type=jnp.int32)


def _widened(
    queries: Shaped[Array, "q d"], block: Shaped[Array, "b d"]
) -> Shaped[Array, "q b"]:
    """Float32 products with a block of fewer bits."""
    wide = block.astype(jnp.float32)
    return jnp.matmul(queries, wide.T, precision=jax.lax.Precision.HIGHEST)


def _in_three_parts(
    queries: Shaped[Array, "q d"], block: Shaped[Array, "b d"]
) -> Shaped[Array, "q b"]:
    """Float32 products with a bfloat16 block, by what multiplies bfloat16 matrices.

    Three bfloat16 hold a float32's 24 bits.
    """
    parts, rest = [], queries
    for _ in range(3):
        # Not a cast and back, which XLA would leave out.
        rounded = jax.lax.reduce_precision(rest, exponent_bits=8, mantissa_bits=7)
        parts.append(rounded)
        rest = jnp.where(jnp.isfinite(rounded), rest - rounded, 0)
    scores = _narrow_products(jnp.concatenate(parts), block)
    first, second, third = jnp.split(scores, 3)
    # The rest of a product with what is infinite is no number.
    return jnp.where(jnp.isfinite(first), first + second + third, first)


def _narrow_products(
    queries: Shaped[Array, "q d"], block: Shaped[Array, "b d"]
) -> Shaped[Array, "q b"]:
    """Products of bfloat16, which are exact in float32, in which they are summed up."""
    # Not by the block's transpose, before which XLA's CPU backend widens all of it.
    return jax.lax.dot_general(
        queries.astype(jnp.bfloat16),
        block.astype(jnp.bfloat16),
        (((1,), (1,)), ((), ())),
        preferred_element_type=jnp.float32,
    )


def _by_vectors(
    queries: Shaped[Array, "q d"], block: Shaped[Array, "b d"]
) -> Shaped[Array, "q b"]:
    """Float32 products; XLA's CPU backend is slower at a matrix of one query."""
    if len(queries) > 1:
        return _widened(queries, block)
    return jnp.matmul(block, queries[0], precision=jax.lax.Precision.HIGHEST)[None]


def _widened_in_tiles(
    queries: Shaped[Array, "q d"], block: Shaped[Array, "b d"]
) -> Shaped[Array, "q b"]:
    """The same, tile by tile: on a CPU the float32 form then stays in the cache."""
    # One query's product is fused with the cast, and nothing is stored.
    if len(queries) == 1 or len(block) % ALIGNMENT:
        return _widened(queries, block)
    return _in_tiles(_widened, queries, block, ALIGNMENT)


def _in_tiles(
    multiply: Multiply,
    queries: Shaped[Array, "q d"],
    block: Shaped[Array, "b d"],
    rows: int,
) -> Shaped[Array, "q b"]:
    tiles = block.reshape(-1, rows, block.shape[1])
    scores = jax.lax.map(lambda tile: multiply(queries, tile), tiles)  # [t, q, tile]
    return scores.transpose(1, 0, 2).reshape(len(queries), len(block))


def _exact_by_float32(
    queries: Shaped[Array, "q d"], block: Shaped[Array, "b d"]
) -> Shaped[Array, "q b"]:
    """The same int32 scores by float32 products, for which a CPU is made."""

    def multiply(asked: Array, part: Array) -> Array:
        return _widened_in_tiles(asked.astype(jnp.float32), part)

    return _exact(multiply, queries, block)


def _exact_by_bfloat16(
    queries: Shaped[Array, "q d"], block: Shaped[Array, "b d"]
) -> Shaped[Array, "q b"]:
    """The same by products of bfloat16, which holds every int8."""
    if len(queries) == 1:
        return _exact_by_float32(queries, block)

    def multiply(asked: Array, part: Array) -> Array:
        rows = len(part) if len(part) % ALIGNMENT else math.gcd(len(part), TILE)
        return _in_tiles(_narrow_products, asked, part, rows)

    return _exact(multiply, queries, block)


def _exact(
    multiply: Multiply, queries: Shaped[Array, "q d"], block: Shaped[Array, "b d"]
) -> Shaped[Array, "q b"]:
    """Sums up in int32 what float32 holds exactly of as many dimensions at a time."""
    scores = jnp.zeros((len(queries), len(block)), jnp.int32)
    for start in range(0, block.shape[1], EXACT_DIMS):
        part = slice(start, start + EXACT_DIMS)
        scores += multiply(queries[:, part], block[:, part]).astype(jnp.int32)
    return scores


def _by_tables(
    tables: Shaped[Array, "q m 256"], codes: Shaped[Array, "b m"]
) -> Shaped[Array, "q b"]:
    """Asymmetric distance: each code looks up its share of the product."""

    def add(
        scores: Shaped[Array, "b q"], place: tuple[Shaped[Array, "256 q"], Array]
    ) -> tuple[Shaped[Array, "b q"], None]:
        table, code = place
        return scores + table[code], None

    # A code's entries for all queries lie side by side, and are read together.
    by_place = (tables.transpose(1, 2, 0), codes.T.astype(jnp.int32))
    start = jnp.zeros((len(codes), len(tables)), jnp.float32)
    return jax.lax.scan(add, start, by_place)[0].T
