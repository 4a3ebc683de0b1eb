"""What a device can do at best, measured: its matrix rate and its memory bandwidth.

A data sheet does not know clocks, virtual cores and other users, so both are measured
in turns with the program that is compared with them.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from tokret.models.kernels.matmul import project

SIDES = {"cpu": 2048, "gpu": 8192, "tpu": 8192}  # of the square matrices
STREAM = {"cpu": 2**25, "gpu": 2**27, "tpu": 2**27}  # float32 in each of three arrays


class Limit(NamedTuple):
    """Work that is bound by one limit alone.

    Attributes:
      call: does it once and waits for it.
      amount: FLOP or bytes of a call.
    """

    call: Callable[[], object]
    amount: int


class Limits(NamedTuple):
    """The limits of a device.

    Attributes:
      matrix: square products of a dtype, as models compute them; float32 is not TF32.
      bandwidth: a + 2 b, written to a third array.
    """

    matrix: Limit
    bandwidth: Limit


def make_limits(dtype: str, side: int | None = None) -> Limits:
    """Makes the work for the first device.

    Args:
      dtype: of the products.
      side: of their matrices; the stream has as many elements as 8 of them. None takes
        what fills the device.
    """
    kind = jax.default_backend()
    length = 8 * side**2 if side else STREAM.get(kind, STREAM["cpu"])
    side = side or SIDES.get(kind, SIDES["cpu"])
    matrix = jax.random.normal(jax.random.key(0), (side, side)).astype(dtype)
    multiply = jax.jit(project)
    one, two = jnp.ones(length, jnp.float32), jnp.ones(length, jnp.float32)
    add = jax.jit(lambda a, b: a + 2.0 * b)
    return Limits(
        Limit(lambda: multiply(matrix, matrix).block_until_ready(), 2 * side**3),
        Limit(lambda: add(one, two).block_until_ready(), 3 * 4 * length),
    )
