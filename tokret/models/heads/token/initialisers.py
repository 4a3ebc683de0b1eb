"""What Token's layers begin with where no weights are given.

The released code draws every linear layer at random, so that a new head scrambles what
a pretrained trunk says, and has to find it again. Over tens of thousands of classes it
does; over some dozens it does not (docs/own-photos.md). From `LOSSLESS`, and with small
queries of the tokenizer, the head begins as the mean of the trunk's features, reduced
and normalised by channel: layers that all passes through are orthogonal, residual
branches are silent, and every token counts the same in the descriptor.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from tokret.models.layers import Initializer, uniform_fan_in

zeros = nn.initializers.zeros


class Start(NamedTuple):
    """How the linear layers begin; output projections of attentions are always zero.

    Attributes:
      through: kernels of layers that all passes through.
      branch: kernels of the last layers of other residual branches.
      join: the kernel of the layer after the tokens, by their number.
      bias: the biases of all these; None for PyTorch's default.
    """

    through: Initializer
    branch: Initializer
    join: Callable[[int], Initializer]
    bias: Initializer | None


def alike(tokens: int) -> Initializer:
    """Draws one orthogonal matrix, scaled by 1/sqrt(tokens), for every token alike."""

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        width = shape[0] // tokens
        turn = nn.initializers.orthogonal()(key, (width, *shape[1:]), dtype)
        return jnp.tile(turn / math.sqrt(tokens), (tokens, 1))

    return draw


RELEASED = Start(uniform_fan_in, uniform_fan_in, lambda tokens: uniform_fan_in, None)
LOSSLESS = Start(nn.initializers.orthogonal(), zeros, alike, zeros)
STARTS = {"released": RELEASED, "lossless": LOSSLESS}
