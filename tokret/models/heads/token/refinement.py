"""Refinement of the tokens by cross- and self-attention (paper, section 3.4).

The paper's equations and the released code differ; both forms are here.
"""

from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn

from tokret.models.attention import Attention
from tokret.models.layers import (
    DropPath,
    Initializer,
    Linear,
    layer_norm,
    uniform_fan_in,
)
from tokret.shapes import Array, Bool, Float

Layer = Callable[[Array], Array]


class RefinementLayer(nn.Module):
    """Cross-attention to the local features, an MLP, self-attention, as released.

    The MLP has no norm before it; the initialisers are those of its last layer.
    """

    num_heads: int
    dropout: float
    drop_path: float
    dtype: Any
    kernel_init: Initializer = uniform_fan_in
    bias_init: Initializer | None = None

    @nn.compact
    def __call__(
        self,
        tokens: Float[Array, "b l d"],
        x: Float[Array, "b n d"],
        mask: Bool[Array, "b n"] | None,
        *,
        train: bool,
    ) -> Float[Array, "b l d"]:
        """Returns refined tokens; positions where `mask` is False are ignored."""
        drop = DropPath(self.drop_path)
        settings = (self.num_heads, self.dropout, self.dtype)
        own = Attention(*settings, name="self_attn")
        cross = Attention(*settings, few_queries=True, name="cross_attn")
        return self._refine(
            tokens,
            lambda y: drop(own(y, y, train=train), train=train),
            lambda y: drop(cross(y, x, mask, train=train), train=train),
            lambda y: drop(self._mlp(y, train), train=train),
        )

    def _refine(
        self, tokens: Array, self_attention: Layer, cross_attention: Layer, mlp: Layer
    ) -> Array:
        tokens = tokens + cross_attention(layer_norm(self.dtype, "norm1")(tokens))
        tokens = tokens + mlp(tokens)
        return tokens + self_attention(layer_norm(self.dtype, "norm2")(tokens))

    def _mlp(self, tokens: Float[Array, "b l d"], train: bool) -> Float[Array, "b l d"]:
        width = tokens.shape[-1]
        dropout = nn.Dropout(self.dropout, deterministic=not train)
        y = Linear(2 * width, self.dtype, name="fc1")(tokens)  # [b, l, 2 d]
        y = dropout(jax.nn.gelu(y, approximate=False))
        initialisers = (self.kernel_init, self.bias_init)
        return dropout(Linear(width, self.dtype, *initialisers, name="fc2")(y))


class PaperRefinementLayer(RefinementLayer):
    """The paper's own form: self-attention first, norms last, no MLP."""

    def _refine(
        self, tokens: Array, self_attention: Layer, cross_attention: Layer, mlp: Layer
    ) -> Array:
        tokens = layer_norm(self.dtype, "norm1")(tokens + self_attention(tokens))
        return layer_norm(self.dtype, "norm2")(tokens + cross_attention(tokens))


REFINEMENTS = {"released": RefinementLayer, "paper": PaperRefinementLayer}
