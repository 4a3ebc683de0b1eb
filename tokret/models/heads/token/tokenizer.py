"""The visual tokenizer: local features -> L tokens (paper, section 3.3).

The paper's equations and the released code differ; both forms are here.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from tokret.models.heads.token.initialisers import RELEASED, Start
from tokret.models.kernels.matmul import precision_of
from tokret.models.layers import linear
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
    logits = jnp.einsum(
        "ld,bnd->bln",
        query,
        x,
        precision=precision_of(x.dtype),
        preferred_element_type=statistics_dtype(x),
    )
    return jax.nn.softmax(logits, axis=1)


def gather(weights: Float[Array, "b l n"], x: Float[Array, "b n d"]) -> Array:
    """Sums the features with each token's weights, [b, l, d]."""
    return jnp.einsum(
        "bln,bnd->bld", weights.astype(x.dtype), x, precision=precision_of(x.dtype)
    )


class Tokenizer(nn.Module):
    """Gathers local features into tokens by their affinity to L learned queries.

    A token is the sum over positions of weight times feature, not divided by the sum of
    the weights, then a linear layer and a layer norm.

    Attributes:
      tokens: L.
      query_init_std: standard deviation of the queries at the start. At 1, as
        released, the logits' deviation is the root of the width: nearly every position
        belongs to one token alone and little gradient reaches the assignment, which a
        trunk that is not pretrained has to learn as well.
      dtype: dtype of the computation.
      start: how the linear layer begins.
    """

    tokens: int
    query_init_std: float
    dtype: Any
    start: Start = RELEASED

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], mask: Bool[Array, "b n"] | None
    ) -> tuple[Float[Array, "b l d"], Float[Array, "b l n"]]:
        """Returns the tokens and the attention maps, zero where `mask` is False."""
        width = x.shape[-1]
        query = self.param(
            "query",
            nn.initializers.normal(self.query_init_std),
            (self.tokens, width),
            jnp.float32,
        )
        weights = assign(query.astype(x.dtype), x)
        if mask is not None:
            weights = jnp.where(mask[:, None, :], weights, 0)
        draws = (self.start.through, self.start.bias)
        turn = linear(width, width, self.dtype, "linear", *draws)
        return layer_norm(self.dtype, "norm")(turn(gather(weights, x))), weights


class PaperTokenizer(nn.Module):
    """The paper's own form: L maps by a 1x1 convolution, and weighted means.

    A token is the sum over positions of weight times feature, divided by the sum of the
    weights; no linear layer and no norm come after.

    Attributes:
      tokens: L.
      query_init_std: standard deviation of the convolution's weights at the start,
        which the paper does not give: as the released queries'.
      dtype: dtype of the computation.
      start: without effect: no linear layer comes after.
    """

    tokens: int
    query_init_std: float
    dtype: Any
    start: Start = RELEASED

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], mask: Bool[Array, "b n"] | None
    ) -> tuple[Float[Array, "b l d"], Float[Array, "b l n"]]:
        """Returns the tokens and the attention maps, zero where `mask` is False."""
        draw = nn.initializers.normal(self.query_init_std)
        maps = linear(self.tokens, x.shape[-1], self.dtype, "maps", draw)(x)
        logits = jnp.swapaxes(maps.astype(statistics_dtype(maps)), 1, 2)  # [b, l, n]
        log_weights = jax.nn.log_softmax(logits, axis=1)
        weights = jnp.exp(log_weights)
        if mask is not None:
            exists = mask[:, None, :]
            weights = jnp.where(exists, weights, 0)
            log_weights = jnp.where(exists, log_weights, -jnp.inf)
        # A weight divided by their sum is a softmax over POSITIONS of its logarithm,
        # which is exact where all weights of a token vanish.
        return gather(jax.nn.softmax(log_weights, axis=-1), x), weights


TOKENIZERS = {"released": Tokenizer, "paper": PaperTokenizer}
