"""Multi-head attention and local feature self-attention (paper, section 3.2)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from tokret.models.kernels.matmul import einsum, project
from tokret.models.layers import (
    BatchNorm,
    DropPath,
    Initializer,
    Linear,
    uniform_fan_in,
    zeros,
)
from tokret.shapes import Array, Bool, Float

# The released truncated normal is cut at 100 standard deviations: a plain normal.
small_normal = nn.initializers.normal(0.02)


def attention_weights(
    queries: Float[Array, "b n h d"],
    keys: Float[Array, "b m h d"],
    key_mask: Bool[Array, "b m"] | None,
) -> Float[Array, "b h n m"]:
    """Returns the softmax over the KEYS of the scaled dot products of every head.

    `key_mask` is True where a key exists; None if all do.
    """
    logits = einsum("bnhd,bmhd->bhnm", queries, keys, wide=True)
    weights = _softmax(logits, queries.shape[-1] ** -0.5, key_mask)
    return weights.astype(queries.dtype)


def _softmax(
    logits: Float[Array, "b h n m"], scale: float, key_mask: Bool[Array, "b m"] | None
) -> Float[Array, "b h n m"]:
    if key_mask is not None:
        logits = jnp.where(key_mask[:, None, None, :], logits, -jnp.inf)
    # Scaled after the maximum is subtracted: XLA fuses product and difference into one
    # operation that rounds once, and the maximum of huge logits would exceed itself.
    highest = jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    return jax.nn.softmax(scale * (logits - highest), axis=-1)


class _LinearWeights(nn.Module):
    """The weights of `Linear`, by the same names, without its product."""

    width: int
    dtype: Any

    @nn.compact
    def __call__(self) -> tuple[Float[Array, "d d"], Float[Array, " d"]]:
        shape = (self.width, self.width)
        kernel = self.param("kernel", small_normal, shape, jnp.float32)
        bias = self.param("bias", zeros, (self.width,), jnp.float32)
        return kernel.astype(self.dtype), bias.astype(self.dtype)


class Attention(nn.Module):
    """Multi-head attention with biases everywhere; its output is zero at first.

    `num_heads` divides the inputs' width. In training `dropout` is the rate on the
    weights and on the output. With `few_queries` the source has many more vectors.
    """

    num_heads: int
    dropout: float
    dtype: Any
    few_queries: bool = False

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n d"],
        source: Float[Array, "b m d"],
        source_mask: Bool[Array, "b m"] | None = None,
        *,
        train: bool,
    ) -> Float[Array, "b n d"]:
        """Lets each vector of `x` attend to `source`, where `source_mask` is True."""
        width = x.shape[-1]
        dropout = nn.Dropout(self.dropout, deterministic=not train)
        queries = self._project(x, "q")
        # Projecting the queries is less work than projecting the whole source to keys
        # and values, unless there are too many queries.
        if self.few_queries and x.shape[1] * self.num_heads < width:
            y = self._attend_few(queries, source, source_mask, dropout)
        else:
            keys = self._project(source, "k")
            weights = dropout(attention_weights(queries, keys, source_mask))
            y = einsum("bhnm,bmhd->bnhd", weights, self._project(source, "v"))
        y = y.reshape(x.shape)  # [b, n, h, e] -> [b, n, d]
        return dropout(Linear(width, self.dtype, zeros, zeros, name="proj")(y))

    def _project(
        self, inputs: Float[Array, "b n d"], name: str
    ) -> Float[Array, "b n h e"]:
        width = inputs.shape[-1]
        y = Linear(width, self.dtype, small_normal, zeros, name=name)(inputs)
        return y.reshape(*y.shape[:2], self.num_heads, -1)  # [b, n, h, e]

    def _attend_few(
        self,
        queries: Float[Array, "b n h e"],
        source: Float[Array, "b m d"],
        mask: Bool[Array, "b m"] | None,
        dropout: nn.Module,
    ) -> Float[Array, "b n h e"]:
        """Attention without keys and values: q . (K x) is (K' q) . x.

        Values likewise are a projection of the weighted sum of the source. The bias of
        the keys adds the same number to all logits of a softmax, so it does nothing.
        """
        width, source = source.shape[-1], source.astype(self.dtype)
        (to_keys, _), (to_values, bias) = (
            _LinearWeights(width, self.dtype, name=name)() for name in ("k", "v")
        )
        shape = (width, self.num_heads, -1)  # [d, h, e]
        to_keys, to_values = to_keys.reshape(shape), to_values.reshape(shape)
        projected = einsum("bnhe,dhe->bnhd", queries, to_keys)
        logits = einsum("bnhd,bmd->bhnm", projected, source, wide=True)
        weights = _softmax(logits, queries.shape[-1] ** -0.5, mask).astype(self.dtype)
        weights = dropout(weights)  # [b, h, n, m]
        sums = einsum("bhnm,bmd->bnhd", weights, source)
        # One product per head, so that the gradient of the matrix has the layout of the
        # matrix (docs/performance.md, "A head's values, a product a head").
        y = jax.vmap(project, in_axes=(2, 1), out_axes=2)(sums, to_values)
        # Without dropout the weights' sum is 1.
        total = jnp.sum(weights, axis=-1).swapaxes(1, 2)[..., None]  # [b, n, h, 1]
        return y + total * bias.reshape(self.num_heads, -1)


class LocalFeatureSelfAttention(nn.Module):
    """One layer of self-attention among the local features.

    x + attention(x, x, x), then x + linear(batch_norm(x)): no layer norm, no position
    encoding, no non-linearity, as released. Fields: see `Attention`, `DropPath` and
    `Linear`.
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
        x: Float[Array, "b n d"],
        mask: Bool[Array, "b n"] | None,
        *,
        train: bool,
    ) -> Float[Array, "b n d"]:
        """Refines local features `x`; positions where `mask` is False are ignored."""
        drop = DropPath(self.drop_path)
        attention = Attention(self.num_heads, self.dropout, self.dtype, name="attn")
        x = x + drop(attention(x, x, mask, train=train), train=train)
        y = BatchNorm(name="bn")(x, train=train)
        initialisers = (self.kernel_init, self.bias_init)
        mlp = Linear(x.shape[-1], self.dtype, *initialisers, name="mlp")
        return x + drop(mlp(y), train=train)
