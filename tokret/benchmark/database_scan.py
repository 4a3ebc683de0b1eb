"""Search of a database that is on the device, compared with reading it once.

No search that compares every descriptor can be faster than one pass over the memory.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tokret.arguments import within
from tokret.benchmark.timing import ratios, spread, time_calls
from tokret.retrieval.exact_search import blocks as search_blocks
from tokret.retrieval.exact_search.blocks import Blocks
from tokret.retrieval.exact_search.top_k import top_k
from tokret.shapes import Array

DIMS, QUERIES, K = 1024, 70, 100
ROWS = {"cpu": 100_000, "gpu": 1_000_000, "tpu": 1_000_000}
# So large that starting a program is nothing beside reading a block: 256 MiB. A CPU
# has the blocks of a search.
BLOCK = {"cpu": search_blocks.BLOCK, "gpu": 2**17, "tpu": 2**17}


def make_blocks(total: int, dims: int, block: int, store: str = "bfloat16") -> Blocks:
    """Draws [total, dims] on the first device, in blocks of so many rows."""
    dtype = jnp.dtype(store)

    @jax.jit
    def draw(key: Array) -> Array:
        return jax.random.normal(key, (block, dims), jnp.float32).astype(dtype)

    # The last block begins with rows of the one before, which do not count.
    on_device = [draw(jax.random.key(i)) for i in range(-(-total // block))]
    return Blocks(
        *(total, block, dtype, (jax.devices()[0],)),
        on_device.__getitem__,
        prefetch=lambda number: None,
    )


def run(
    turns: int,
    rows: int | None = None,
    dims: int = DIMS,
    block: int | None = None,
    store: str = "bfloat16",
) -> dict[str, Any]:
    """Times 70 queries, best 100 of each, and one pass over the same memory.

    Args:
      turns: how often.
      rows: descriptors; None takes a million, fewer on a CPU.
      dims: dimensions.
      block: rows of a block, a multiple of 128 except where it is the only one; None
        takes the platform's.
      store: bfloat16 or float32.

    Returns:
      rows, dims, queries, store, the database's bytes; search and read, seconds; ratio
      of both; each [median, lowest, highest].

    Raises:
      UserError: rows is below 1.
    """
    platform = jax.default_backend()
    rows = ROWS.get(platform, ROWS["gpu"]) if rows is None else within("rows", rows, 1)
    block = block or BLOCK.get(platform, BLOCK["gpu"])
    blocks = make_blocks(rows, dims, min(block, rows), store)
    queries = np.random.default_rng(0).standard_normal((QUERIES, dims), np.float32)
    largest = jax.jit(jnp.max)
    times = time_calls(
        {
            "search": lambda: top_k(queries, blocks, min(K, rows)),
            "read": lambda: jax.block_until_ready(
                [largest(blocks.load(number)) for number in range(len(blocks))]
            ),
        },
        turns,
    )
    return {
        **{"rows": rows, "dims": dims, "queries": QUERIES, "store": store},
        "bytes": blocks.dtype.itemsize * rows * dims,
        **{name: spread(taken) for name, taken in times.items()},
        "ratio": spread(ratios(times["search"], times["read"])),
    }
