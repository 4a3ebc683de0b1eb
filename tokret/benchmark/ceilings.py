"""What a device can do at best, measured: its matrix rate and its memory bandwidth.

A share of these says how far a program is from the machine it ran on, which a data
sheet does not know: clocks, virtual cores, other users. So both are taken in turns with
the program.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tokret.models.kernels.matmul import project

SIDES = {"cpu": 2048, "gpu": 8192, "tpu": 8192}  # of the square matrices
STREAM = {"cpu": 2**25, "gpu": 2**27, "tpu": 2**27}  # float32 in each of three arrays


class Ceiling(NamedTuple):
    """Work that does nothing but reach a limit.

    Attributes:
      call: does it once and waits for it.
      amount: FLOP or bytes of a call.
    """

    call: Callable[[], object]
    amount: int


class Ceilings(NamedTuple):
    """The limits of a device.

    Attributes:
      matrix: square products of a dtype, as models take them; float32 means float32.
      bandwidth: a + 2 b, written to a third array.
    """

    matrix: Ceiling
    bandwidth: Ceiling


def _run(function: Any, *arrays: jax.Array) -> None:
    function(*arrays).block_until_ready()


def make_ceilings(dtype: str, side: int | None = None) -> Ceilings:
    """Makes the work for the first device.

    Args:
      dtype: of the products.
      side: of their matrices; the stream has as many numbers as 8 of them. None takes
        what fills the device.
    """
    kind = jax.default_backend()
    length = 8 * side**2 if side else STREAM.get(kind, STREAM["cpu"])
    side = side or SIDES.get(kind, SIDES["cpu"])
    matrix = jax.random.normal(jax.random.key(0), (side, side)).astype(dtype)
    multiply = jax.jit(project)
    one, two = jnp.ones(length, jnp.float32), jnp.ones(length, jnp.float32)
    add = jax.jit(lambda a, b: a + 2.0 * b)
    return Ceilings(
        Ceiling(functools.partial(_run, multiply, matrix, matrix), 2 * side**3),
        Ceiling(functools.partial(_run, add, one, two), 3 * 4 * length),
    )
