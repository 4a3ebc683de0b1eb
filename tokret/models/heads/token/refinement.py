"""Refinement of the tokens by cross- and self-attention (paper, section 3.4).

The paper's equations and the released code differ; both forms are here.
"""

from typing import Any

import jax
from flax import linen as nn

from tokret.models.attention import Attention
from tokret.models.layers import (
    DropPath,
    Initializer,
    layer_norm,
    linear,
    uniform_fan_in,
)
from tokret.shapes import Array, Bool, Float


class _Refinement(nn.Module):
    """The attributes of both forms, and their attentions."""

    num_heads: int
    dropout: float
    drop_path: float
    dtype: Any
    kernel_init: Initializer = uniform_fan_in
    bias_init: Initializer | None = None

    def _attentions(self) -> tuple[Attention, Attention]:
        """Self-attention of the tokens, and cross-attention to the local features."""
        settings = (self.num_heads, self.dropout, self.dtype)
        return (
            Attention(*settings, name="self_attn"),
            Attention(*settings, few_queries=True, name="cross_attn"),
        )


class RefinementLayer(_Refinement):
    """Cross-attention to the local features, an MLP, self-attention, as released.

    token += cross_attention(norm(token), x, x); token += MLP(token), which has no norm
    before it; token += self_attention(norm(token)).

    Attributes:
      num_heads: heads of both attentions.
      dropout: rate in the attentions and the MLP.
      drop_path: rate at which an example skips a branch.
      dtype: dtype of the computation.
      kernel_init: initialiser of the kernel of the MLP's last layer.
      bias_init: initialiser of its bias; None for PyTorch's default.
    """

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
        self_attention, cross_attention = self._attentions()
        y = layer_norm(self.dtype, "norm1")(tokens)
        y = cross_attention(y, x, mask, train=train)
        tokens = tokens + drop(y, train=train)
        tokens = tokens + drop(self._mlp(tokens, train), train=train)
        y = layer_norm(self.dtype, "norm2")(tokens)
        return tokens + drop(self_attention(y, y, train=train), train=train)

    def _mlp(self, tokens: Float[Array, "b l d"], train: bool) -> Float[Array, "b l d"]:
        width = tokens.shape[-1]
        dropout = nn.Dropout(self.dropout, deterministic=not train)
        y = linear(2 * width, width, self.dtype, "fc1")(tokens)  # [b, l, 2 d]
        y = dropout(jax.nn.gelu(y, approximate=False))
        initialisers = (self.kernel_init, self.bias_init)
        return dropout(linear(width, 2 * width, self.dtype, "fc2", *initialisers)(y))


class PaperRefinementLayer(_Refinement):
    """The paper's own form: self-attention first, norms last, no MLP.

    token = norm(token + self_attention(token)), then
    token = norm(token + cross_attention(token, x, x)).

    Attributes: as `RefinementLayer`; the initialisers have no effect.
    """

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
        self_attention, cross_attention = self._attentions()
        y = drop(self_attention(tokens, tokens, train=train), train=train)
        tokens = layer_norm(self.dtype, "norm1")(tokens + y)
        y = drop(cross_attention(tokens, x, mask, train=train), train=train)
        return layer_norm(self.dtype, "norm2")(tokens + y)


REFINEMENTS = {"released": RefinementLayer, "paper": PaperRefinementLayer}
