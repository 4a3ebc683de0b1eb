"""Multi-head attention and local feature self-attention (paper, section 3.2)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from tokret.models.layers import DropPath, linear
from tokret.models.normalisation import BatchNorm, statistics_dtype
from tokret.models.products import precision_of
from tokret.shapes import Array, Bool, Float

# The released truncated normal is cut at 100 deviations: a plain normal.
small_normal = nn.initializers.normal(0.02)
zeros = nn.initializers.zeros


def attend(
    queries: Float[Array, "b n h d"],
    keys: Float[Array, "b m h d"],
    key_mask: Bool[Array, "b m"] | None,
) -> Float[Array, "b h n m"]:
    """Returns attention weights: softmax over the KEYS of the scaled dot products.

    Args:
      queries: queries of every head.
      keys: keys of every head.
      key_mask: True where a key exists; None if all do.
    """
    logits = queries.shape[-1] ** -0.5 * jnp.einsum(
        "bnhd,bmhd->bhnm",
        queries,
        keys,
        precision=precision_of(queries.dtype),
        preferred_element_type=statistics_dtype(queries),
    )
    if key_mask is not None:
        logits = jnp.where(key_mask[:, None, None, :], logits, -jnp.inf)
    return jax.nn.softmax(logits, axis=-1).astype(queries.dtype)


class Attention(nn.Module):
    """Multi-head attention with biases everywhere; its output starts at zero.

    Attributes:
      heads: number of heads; it divides the width of the input.
      dropout: rate on the weights and on the output, in training.
      dtype: dtype of the computation.
    """

    heads: int
    dropout: float
    dtype: Any

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n d"],
        source: Float[Array, "b m d"],
        source_mask: Bool[Array, "b m"] | None = None,
        *,
        train: bool,
    ) -> Float[Array, "b n d"]:
        """Lets each vector of `x` gather from `source`, where `source_mask` is True."""
        width = x.shape[-1]
        dropout = nn.Dropout(self.dropout, deterministic=not train)

        def project(inputs: Array, name: str) -> Array:
            y = linear(width, width, self.dtype, name, small_normal, zeros)(inputs)
            return y.reshape(*y.shape[:2], self.heads, -1)  # [b, n, h, d/h]

        queries, keys = project(x, "q"), project(source, "k")
        weights = dropout(attend(queries, keys, source_mask))  # [b, h, n, m]
        y = jnp.einsum(
            "bhnm,bmhd->bnhd",
            weights,
            project(source, "v"),
            precision=precision_of(self.dtype),
        )
        y = linear(width, width, self.dtype, "proj", zeros, zeros)(y.reshape(x.shape))
        return dropout(y)


class LocalFeatureSelfAttention(nn.Module):
    """One layer of self-attention among the local features.

    x + attention(x, x, x), then x + linear(batch_norm(x)): no layer norm, no position
    encoding, no non-linearity, as released.

    Attributes:
      heads: heads of the attention.
      dropout: rate in the attention.
      drop_path: rate at which an example skips a branch.
      dtype: dtype of the computation.
    """

    heads: int
    dropout: float
    drop_path: float
    dtype: Any

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n d"],
        mask: Bool[Array, "b n"] | None,
        *,
        train: bool,
    ) -> Float[Array, "b n d"]:
        """Refines local features `x`; positions where `mask` is False are ignored."""
        width = x.shape[-1]
        drop = DropPath(self.drop_path)
        attention = Attention(self.heads, self.dropout, self.dtype, name="attn")
        x = x + drop(attention(x, x, mask, train=train), train=train)
        y = BatchNorm(name="bn")(x, train=train)
        return x + drop(linear(width, width, self.dtype, "mlp")(y), train=train)
