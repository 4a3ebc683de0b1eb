"""Refinement of the tokens by cross- and self-attention (paper, section 3.4).

The paper's equations and the released code differ; both forms are here.
"""

from typing import Any

import jax
from flax import linen as nn

from tokret.models.attention import Attention
from tokret.models.heads.token.initialisers import RELEASED, Start
from tokret.models.heads.token.tokenizer import layer_norm
from tokret.models.layers import DropPath, linear
from tokret.shapes import Array, Bool, Float


class RefinementLayer(nn.Module):
    """Tokens look at the local features again, then at each other, as released.

    token += cross_attention(norm(token), x, x); token += MLP(token), which has no norm
    before it; token += self_attention(norm(token)).

    Attributes:
      heads: heads of both attentions.
      dropout: rate in the attentions and the MLP.
      drop_path: rate at which an example skips a branch.
      dtype: dtype of the computation.
      start: how the MLP's last layer begins.
    """

    heads: int
    dropout: float
    drop_path: float
    dtype: Any
    start: Start = RELEASED

    @nn.compact
    def __call__(
        self,
        tokens: Float[Array, "b l d"],
        x: Float[Array, "b n d"],
        mask: Bool[Array, "b n"] | None,
        *,
        train: bool,
    ) -> Float[Array, "b l d"]:
        """Returns the refined tokens; positions of `x` with False in `mask` are out."""
        drop = DropPath(self.drop_path)
        cross = Attention(
            self.heads, self.dropout, self.dtype, few_queries=True, name="cross_attn"
        )
        own = Attention(self.heads, self.dropout, self.dtype, name="self_attn")
        y = layer_norm(self.dtype, "norm1")(tokens)
        tokens = tokens + drop(cross(y, x, mask, train=train), train=train)
        tokens = tokens + drop(self._mlp(tokens, train), train=train)
        y = layer_norm(self.dtype, "norm2")(tokens)
        return tokens + drop(own(y, y, train=train), train=train)

    def _mlp(self, tokens: Float[Array, "b l d"], train: bool) -> Float[Array, "b l d"]:
        width = tokens.shape[-1]
        dropout = nn.Dropout(self.dropout, deterministic=not train)
        y = linear(2 * width, width, self.dtype, "fc1")(tokens)
        y = dropout(jax.nn.gelu(y, approximate=False))
        draws = (self.start.branch, self.start.bias)
        return dropout(linear(width, 2 * width, self.dtype, "fc2", *draws)(y))


class PaperRefinementLayer(nn.Module):
    """The paper's own form: tokens look at each other first, norms come last, no MLP.

    token = norm(token + self_attention(token)), then
    token = norm(token + cross_attention(token, x, x)).

    Attributes:
      heads: heads of both attentions.
      dropout: rate in the attentions.
      drop_path: rate at which an example skips a branch.
      dtype: dtype of the computation.
      start: without effect: there is no MLP.
    """

    heads: int
    dropout: float
    drop_path: float
    dtype: Any
    start: Start = RELEASED

    @nn.compact
    def __call__(
        self,
        tokens: Float[Array, "b l d"],
        x: Float[Array, "b n d"],
        mask: Bool[Array, "b n"] | None,
        *,
        train: bool,
    ) -> Float[Array, "b l d"]:
        """Returns the refined tokens; positions of `x` with False in `mask` are out."""
        drop = DropPath(self.drop_path)
        own = Attention(self.heads, self.dropout, self.dtype, name="self_attn")
        cross = Attention(
            self.heads, self.dropout, self.dtype, few_queries=True, name="cross_attn"
        )
        y = drop(own(tokens, tokens, train=train), train=train)
        tokens = layer_norm(self.dtype, "norm1")(tokens + y)
        y = drop(cross(tokens, x, mask, train=train), train=train)
        return layer_norm(self.dtype, "norm2")(tokens + y)


REFINEMENTS = {"released": RefinementLayer, "paper": PaperRefinementLayer}
