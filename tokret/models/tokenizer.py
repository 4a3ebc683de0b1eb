"""The visual tokenizer: local features -> L tokens (paper, section 3.3)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from tokret.models.layers import linear, precision_of
from tokret.models.normalisation import statistics_dtype
from tokret.shapes import Array, Bool, Float

LAYER_NORM_EPSILON = 1e-5  # PyTorch's; Flax's default is 1e-6


def layer_norm(dtype: Any, name: str) -> nn.LayerNorm:
    """Makes a layer norm over the last axis, its variance computed in two passes."""
    return nn.LayerNorm(
        epsilon=LAYER_NORM_EPSILON, use_fast_variance=False, dtype=dtype, name=name
    )


def assign(
    query: Float[Array, "l d"], x: Float[Array, "b n d"]
) -> Float[Array, "b l n"]:
    """Shares each position out among the tokens: softmax over the L TOKENS."""
    logits = jnp.einsum("ld,bnd->bln", query, x, precision=precision_of(x.dtype))
    return jax.nn.softmax(logits.astype(statistics_dtype(logits)), axis=1)


class Tokenizer(nn.Module):
    """Gathers local features into tokens by their affinity to L learned queries.

    A token is the sum over positions of weight times feature, not divided by the sum of
    the weights, then a linear layer and a layer norm.

    Attributes:
      tokens: L.
      query_deviation: standard deviation of the queries at the start. At 1, as
        released, the logits' deviation is the root of the width: nearly every position
        belongs to one token alone and little gradient reaches the assignment, which a
        trunk that is not pretrained has to learn as well.
      dtype: dtype of the computation.
    """

    tokens: int
    query_deviation: float
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], mask: Bool[Array, "b n"] | None
    ) -> tuple[Float[Array, "b l d"], Float[Array, "b l n"]]:
        """Returns the tokens and the attention maps, zero where `mask` is False."""
        width = x.shape[-1]
        query = self.param(
            "query",
            nn.initializers.normal(self.query_deviation),
            (self.tokens, width),
            jnp.float32,
        )
        weights = assign(query.astype(x.dtype), x)
        if mask is not None:
            weights = jnp.where(mask[:, None, :], weights, 0)
        tokens = jnp.einsum(
            "bln,bnd->bld",
            weights.astype(x.dtype),
            x,
            precision=precision_of(x.dtype),
        )
        tokens = linear(width, width, self.dtype, "linear")(tokens)
        return layer_norm(self.dtype, "norm")(tokens), weights
