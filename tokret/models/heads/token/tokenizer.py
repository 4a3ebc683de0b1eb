"""The visual tokenizer: local features -> L tokens (paper, section 3.3).

The paper's equations and the released code differ; both forms are here.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from tokret.models.kernels.matmul import einsum, statistics_dtype
from tokret.models.layers import Initializer, Linear, layer_norm, uniform_fan_in
from tokret.shapes import Array, Bool, Float


def soft_assignment(
    query: Float[Array, "l d"], x: Float[Array, "b n d"]
) -> Float[Array, "b l n"]:
    """Assigns each position to the tokens: softmax over the L TOKENS."""
    return jax.nn.softmax(einsum("ld,bnd->bln", query, x, wide=True), axis=1)


def weighted_sum(
    weights: Float[Array, "b l n"], x: Float[Array, "b n d"]
) -> Float[Array, "b l d"]:
    """Sums the features with each token's weights."""
    return einsum("bln,bnd->bld", weights.astype(x.dtype), x)


class Tokenizer(nn.Module):
    """Aggregates local features into tokens by their affinity to L learned queries.

    A token is the sum over positions of weight times feature, not divided by the sum of
    the weights, then a linear layer and a layer norm.

    With a `query_init_std` of 1, as released, the logits' standard deviation is the
    root of the width: nearly every position belongs to one token alone and little
    gradient reaches the assignment, which a trunk that is not pretrained has to learn
    as well. Initialisers are those of the linear layer.
    """

    tokens: int
    query_init_std: float
    dtype: Any
    kernel_init: Initializer = uniform_fan_in
    bias_init: Initializer | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], mask: Bool[Array, "b n"] | None
    ) -> tuple[Float[Array, "b l d"], Float[Array, "b l n"]]:
        """Returns the tokens and the attention maps, zero where `mask` is False."""
        width = x.shape[-1]
        initialiser = nn.initializers.normal(self.query_init_std)
        query = self.param("query", initialiser, (self.tokens, width), jnp.float32)
        weights = soft_assignment(query.astype(x.dtype), x)
        if mask is not None:
            weights = jnp.where(mask[:, None, :], weights, 0)
        initialisers = (self.kernel_init, self.bias_init)
        layer = Linear(width, self.dtype, *initialisers, name="linear")
        tokens = layer_norm(self.dtype, "norm")(layer(weighted_sum(weights, x)))
        return tokens, weights


class PaperTokenizer(Tokenizer):
    """The paper's own form: L maps by a 1x1 convolution, and weighted means.

    A token is the sum over positions of weight times feature, divided by the sum of the
    weights; no linear layer and no norm come after. The paper does not give the
    convolution's initialiser, here of `query_init_std`.
    """

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], mask: Bool[Array, "b n"] | None
    ) -> tuple[Float[Array, "b l d"], Float[Array, "b l n"]]:
        """Returns the tokens and the attention maps, zero where `mask` is False."""
        initialiser = nn.initializers.normal(self.query_init_std)
        maps = Linear(self.tokens, self.dtype, initialiser, name="maps")(x)
        logits = jnp.swapaxes(maps.astype(statistics_dtype(maps)), 1, 2)  # [b, l, n]
        log_weights = jax.nn.log_softmax(logits, axis=1)
        weights = jnp.exp(log_weights)
        if mask is not None:
            mask = mask[:, None, :]
            weights = jnp.where(mask, weights, 0)
            log_weights = jnp.where(mask, log_weights, -jnp.inf)
        # A weight divided by the sum of weights is a softmax over POSITIONS of its
        # logarithm, which is exact where all weights of a token vanish.
        return weighted_sum(jax.nn.softmax(log_weights, axis=-1), x), weights


TOKENIZERS = {"released": Tokenizer, "paper": PaperTokenizer}
