"""Token's head: local features, tokens, one descriptor (paper, figure 2).

The released code fixes 4 tokens, 8 heads, one layer of self-attention, two of
refinement, 1,024 channels and a descriptor of 1,024 dimensions; the defaults are those.
Where the paper's equations differ from the code, a field selects the form; the default
is the code's, for which there are weights.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from tokret.models.attention import LocalFeatureSelfAttention
from tokret.models.heads import FeatureMap, Head, HeadOutput, Intermediates
from tokret.models.heads.token.refinement import REFINEMENTS
from tokret.models.heads.token.tokenizer import TOKENIZERS
from tokret.models.layers import (
    BatchNorm,
    Initializer,
    Linear,
    local_features,
    uniform_fan_in,
    zeros,
)
from tokret.models.masking import Sizes, valid_mask


class LinearInitialisers(NamedTuple):
    """Initialisers of linear layers; output projections of attentions are always zero.

    Kernels on the main path, those of the last layers of other residual branches, that
    of the layer after the tokens, given their number; and of all biases.
    """

    main: Initializer
    residual: Initializer
    projection: Callable[[int], Initializer]
    bias: Initializer | None


def tiled_orthogonal(tokens: int) -> Initializer:
    """Repeats one orthogonal matrix, scaled by 1/sqrt(tokens), for each token."""

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        width = shape[0] // tokens
        matrix = nn.initializers.orthogonal()(key, (width, *shape[1:]), dtype)
        return jnp.tile(matrix / math.sqrt(tokens), (tokens, 1))

    return draw


# The released code draws every linear layer at random, so that a new head scrambles the
# features of a pretrained trunk. Over tens of thousands of classes it learns to undo
# that; over some dozens it does not (docs/groceries.md). With "lossless", and with a
# small query_init_std, the head is the mean of the trunk's features at first, reduced
# and normalised by channel: layers on the main path are orthogonal, residual branches
# are zero, and every token has the same weight in the descriptor.
INITIALISERS = {
    "released": LinearInitialisers(
        uniform_fan_in, uniform_fan_in, lambda tokens: uniform_fan_in, None
    ),
    "lossless": LinearInitialisers(
        nn.initializers.orthogonal(), zeros, tiled_orthogonal, zeros
    ),
}


class TokenHead(Head):
    """Self-attention, tokenizer, refinement and a linear layer over all tokens."""

    width: int = 1024
    tokens: int = 4
    tokenizer: str = "released"
    query_init_std: float = 1.0
    initialiser: str = "released"
    num_heads: int = 8
    attention_layers: int = 1
    refinement: str = "released"
    refinement_layers: int = 2
    dropout: float = 0.1
    drop_path: float = 0.1

    @nn.compact
    def __call__(
        self, features: FeatureMap, sizes: Sizes = None, *, train: bool
    ) -> HeadOutput:
        """See `Head`.

        Intermediates, by the names of the golden cases: local [b, h*w, width], lfsa
        (the same after self-attention), attention [b, tokens, h, w], tokens
        [b, tokens, width], and refined0, refined1, ... of each refinement layer.
        """
        batch, height, width = features.shape[:3]
        mask = valid_mask(sizes, features)
        mask = None if mask is None else mask.reshape(batch, -1)  # [b, h*w]
        init = INITIALISERS[self.initialiser]
        main = (init.main, init.bias)
        residual = (init.residual, init.bias)
        attention = (self.num_heads, self.dropout, self.drop_path, self.dtype)
        x = local_features(features, self.width, self.dtype, *main, train=train)
        x = x.reshape(batch, height * width, self.width)
        intermediates: Intermediates = {"local": x}
        for i in range(self.attention_layers):
            encoder = LocalFeatureSelfAttention(
                *attention, *residual, name=f"encoder{i}"
            )
            x = encoder(x, mask, train=train)
        intermediates["lfsa"] = x
        tokenizer = TOKENIZERS[self.tokenizer](
            self.tokens, self.query_init_std, self.dtype, *main, name="tokenizer"
        )
        tokens, maps = tokenizer(x, mask)
        intermediates["attention"] = maps.reshape(batch, self.tokens, height, width)
        intermediates["tokens"] = tokens
        refinement = REFINEMENTS[self.refinement]
        for i in range(self.refinement_layers):
            decoder = refinement(*attention, *residual, name=f"decoder{i}")
            tokens = decoder(tokens, x, mask, train=train)
            intermediates[f"refined{i}"] = tokens
        flat = tokens.reshape(batch, -1)  # [b, tokens * width]
        projection = (init.projection(self.tokens), init.bias)
        proj = Linear(self.dim, self.dtype, *projection, name="proj")
        return BatchNorm(name="proj_bn")(proj(flat), train=train), intermediates
