"""Scores of queries with one block of a database: dot products, or sums from tables."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from tokret.retrieval.exact_search.blocks import ALIGNMENT
from tokret.runtime.processor import multiplies_bfloat16
from tokret.shapes import Array, Shaped

# Products of two int8 numbers, 127 * 127 at most, summed over this many dimensions stay
# below 2**24: float32 holds every partial sum exactly, in whatever order.
EXACT_DIMS = 1024
# Rows whose cast, to bfloat16 and to float32, still fits into a CPU's cache.
TILE, WIDE_TILE = 2048, 512

Queries = Shaped[Array, "q d"]
Block = Shaped[Array, "b d"]
Scores = Shaped[Array, "q b"]
Multiply = Callable[[Array, Array], Array]  # queries and a block -> scores


def queries_like(
    queries: Shaped[Array | np.ndarray, "q ..."], dtype: np.dtype
) -> Shaped[np.ndarray, "q ..."]:
    """Converts queries to float32, or leaves them int8, to suit a database's dtype.

    Raises:
      ValueError: only one of queries and database is int8, or the queries are tables
        and the database is not product codes, or the reverse.
    """
    rows = np.asarray(queries)
    if (rows.ndim == 3) != (dtype == np.uint8):
        raise ValueError(
            f"queries: shape {rows.shape} for a database of {dtype}: product codes, "
            "uint8, need tables [queries, codes, 256]"
        )
    if (rows.dtype == np.int8) != (dtype == np.int8):
        raise ValueError(
            f"queries: {rows.dtype} for a database of {dtype}: int8 queries and an "
            "int8 database need each other"
        )
    return rows if rows.dtype == np.int8 else rows.astype(np.float32)


@jax.jit
def block_scores(queries: Shaped[Array, "q ..."], block: Block) -> Scores:
    """Scores of a block's items for each query.

    Args:
      queries: [Q, D] float32, or int8 for an int8 block; for product codes
        [Q, M, 256] float32, the contribution of each code at each position.
      block: [B, D] float32, bfloat16 or int8; or [B, M] uint8 product codes.

    Returns:
      [Q, B] float32; int32 and exact for an int8 block. A row of NaN, an image without
      a descriptor, scores lower than any other.
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
    # Not -inf, which marks missing items.
    return jnp.where(jnp.isnan(scores), jnp.finfo(scores.dtype).min, scores)


def _by_int32(queries: Queries, block: Block) -> Scores:
    return jnp.matmul(queries, block.T, preferred_element_type=jnp.int32)


def _widened(queries: Queries, block: Block) -> Scores:
    """Float32 products with a block of fewer bits."""
    wide = block.astype(jnp.float32)
    return jnp.matmul(queries, wide.T, precision=jax.lax.Precision.HIGHEST)


def _in_three_parts(queries: Queries, block: Block) -> Scores:
    """Float32 products with a bfloat16 block, by bfloat16 matrix units.

    Three bfloat16 hold a float32's 24 bits.
    """
    parts, rest = [], queries
    for _ in range(3):
        # Not a cast and back, which XLA would remove.
        rounded = jax.lax.reduce_precision(rest, exponent_bits=8, mantissa_bits=7)
        parts.append(rounded)
        rest = jnp.where(jnp.isfinite(rounded), rest - rounded, 0)
    scores = _narrow_products(jnp.concatenate(parts), block)
    first, second, third = jnp.split(scores, 3)
    # The remainder of a product with an infinite value is NaN.
    return jnp.where(jnp.isfinite(first), first + second + third, first)


def _narrow_products(queries: Queries, block: Block) -> Scores:
    """Products of bfloat16, exact and summed up in float32."""
    # Not with the block's transpose, for which XLA's CPU backend widens all of it.
    return jax.lax.dot_general(
        queries.astype(jnp.bfloat16),
        block.astype(jnp.bfloat16),
        (((1,), (1,)), ((), ())),
        preferred_element_type=jnp.float32,
    )


def _by_vectors(queries: Queries, block: Block) -> Scores:
    """Float32 products; XLA's CPU backend is slower at a matrix of one query."""
    if len(queries) > 1:
        return _widened(queries, block)
    return jnp.matmul(block, queries[0], precision=jax.lax.Precision.HIGHEST)[None]


def _widened_in_tiles(queries: Queries, block: Block) -> Scores:
    """`_widened` tile by tile: on a CPU the float32 form then stays in the cache."""
    # One query's product is fused with the cast, and the result is not stored.
    if len(queries) == 1 or len(block) % ALIGNMENT:
        return _widened(queries, block)
    rows = math.gcd(len(block), WIDE_TILE)
    if block.dtype != jnp.bfloat16:
        return _in_tiles(_widened, queries, block, rows)

    def multiply(queries: Array, tile: Array) -> Array:
        bits = tile.astype(jnp.uint32) << 16
        return _widened(queries, jax.lax.bitcast_convert_type(bits, jnp.float32))

    # XLA's CPU backend slices bfloat16 only after it made all of it float32.
    bits = jax.lax.bitcast_convert_type(block, jnp.uint16)
    return _in_tiles(multiply, queries, bits, rows)


def _in_tiles(multiply: Multiply, queries: Queries, block: Block, rows: int) -> Scores:
    tiles = block.reshape(-1, rows, block.shape[1])
    scores = jax.lax.map(lambda tile: multiply(queries, tile), tiles)  # [t, q, tile]
    return scores.transpose(1, 0, 2).reshape(len(queries), len(block))


def _exact_by_float32(queries: Queries, block: Block) -> Scores:
    """Exact int32 scores by float32 products, which a CPU computes fastest."""

    def multiply(part: Array, items: Array) -> Array:
        return _widened_in_tiles(part.astype(jnp.float32), items)

    return _exact(multiply, queries, block)


def _exact_by_bfloat16(queries: Queries, block: Block) -> Scores:
    """Exact int32 scores by products of bfloat16, which holds every int8."""
    if len(queries) == 1:
        return _exact_by_float32(queries, block)

    def multiply(part: Array, items: Array) -> Array:
        rows = len(items) if len(items) % ALIGNMENT else math.gcd(len(items), TILE)
        return _in_tiles(_narrow_products, part, items, rows)

    return _exact(multiply, queries, block)


def _exact(multiply: Multiply, queries: Queries, block: Block) -> Scores:
    """Sums in int32 products of `EXACT_DIMS` dimensions, exact in float32."""
    scores = jnp.zeros((len(queries), len(block)), jnp.int32)
    for start in range(0, block.shape[1], EXACT_DIMS):
        part = slice(start, start + EXACT_DIMS)
        scores += multiply(queries[:, part], block[:, part]).astype(jnp.int32)
    return scores


def _by_tables(tables: Shaped[Array, "q m 256"], codes: Shaped[Array, "b m"]) -> Scores:
    """Asymmetric distance: each code looks up its part of the product."""

    def add(
        scores: Shaped[Array, "b q"], place: tuple[Shaped[Array, "256 q"], Array]
    ) -> tuple[Shaped[Array, "b q"], None]:
        table, code = place
        return scores + table[code], None

    # A code's entries for all queries are contiguous, and are read together.
    by_place = (tables.transpose(1, 2, 0), codes.T.astype(jnp.int32))
    start = jnp.zeros((len(codes), len(tables)), jnp.float32)
    return jax.lax.scan(add, start, by_place)[0].T
