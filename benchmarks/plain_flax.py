"""Token over a ResNet in plain Flax, to compare the bytes that a TPU moves.

A first version: nn.Conv, nn.BatchNorm, nn.Dense, nn.dot_product_attention,
with the names of tokret's parameters, so that both take the same weights.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from tokret.models.heads import Intermediates
from tokret.models.preprocessing import IMAGENET, PixelScale
from tokret.models.retrieval_net import RetrievalNet
from tokret.models.trunks.resnet import EXPANSION
from tokret.shapes import Array, Float

# As released; dropout of paths too.
NUM_HEADS, TOKENS, REFINEMENT_LAYERS, DROPOUT = 8, 4, 2, 0.1


def _conv(width: int, side: int, dtype: Any, name: str, stride: int = 1) -> nn.Conv:
    padding = [(side // 2, side // 2)] * 2
    shape = (width, (side, side), (stride, stride), padding)
    return nn.Conv(*shape, use_bias=False, dtype=dtype, name=name)


def _dropout(train: bool, broadcast_dims: tuple[int, ...] = ()) -> nn.Dropout:
    return nn.Dropout(DROPOUT, broadcast_dims, deterministic=not train)


def _norm(train: bool, dtype: Any, name: str) -> nn.BatchNorm:
    return nn.BatchNorm(not train, momentum=0.9, epsilon=1e-5, dtype=dtype, name=name)


class PlainBottleneck(nn.Module):
    """As `trunks.resnet.Bottleneck`, for images that fill their canvas."""

    width: int
    stride: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Array:
        """Returns the block's output, [b, h2, w2, 4 width]."""
        out, dtype = EXPANSION * self.width, self.dtype
        y = _conv(self.width, 1, dtype, "conv1")(x)
        y = nn.relu(_norm(train, dtype, "bn1")(y))
        y = _conv(self.width, 3, dtype, "conv2", self.stride)(y)
        y = nn.relu(_norm(train, dtype, "bn2")(y))
        y = _norm(train, dtype, "bn3")(_conv(out, 1, dtype, "conv3")(y))
        if self.stride != 1 or x.shape[-1] != out:
            x = _conv(out, 1, dtype, "downsample_conv", self.stride)(x)
            x = _norm(train, dtype, "downsample_bn")(x)
        return nn.relu(x + y)


class PlainResNet(nn.Module):
    """As `tokret.models.trunks.resnet.ResNet`, for images that fill their canvas."""

    blocks: tuple[int, ...]
    dtype: Any
    pixels: PixelScale = IMAGENET
    frozen_modules = ()

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w 3"], sizes: None = None, *, train: bool
    ) -> tuple[Float[Array, "b h2 w2 c"], None, Intermediates]:
        """Computes the last stage's features."""
        x = _conv(64, 7, self.dtype, "conv1", 2)(images)
        x = nn.relu(_norm(train, self.dtype, "bn1")(x))
        x = nn.max_pool(x, (3, 3), (2, 2), [(1, 1), (1, 1)])
        for stage, count in enumerate(self.blocks, 1):
            for i in range(count):
                stride = 2 if stage > 1 and i == 0 else 1
                block = PlainBottleneck(
                    *(32 * 2**stage, stride, self.dtype), name=f"layer{stage}_block{i}"
                )
                x = block(x, train)
        return x, sizes, {}


class PlainAttention(nn.Module):
    """As `tokret.models.attention.Attention`."""

    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], source: Float[Array, "b m d"], train: bool
    ) -> Float[Array, "b n d"]:
        """Attends from each vector of `x` to `source`."""

        def split(inputs: Array, name: str) -> Array:
            y = nn.Dense(inputs.shape[-1], dtype=self.dtype, name=name)(inputs)
            return y.reshape(*y.shape[:2], NUM_HEADS, -1)

        y = nn.dot_product_attention(
            *(split(x, "q"), split(source, "k"), split(source, "v")),
            broadcast_dropout=False,
            dropout_rng=self.make_rng("dropout") if train else None,
            dropout_rate=DROPOUT,
            deterministic=not train,
        )
        y = nn.Dense(x.shape[-1], dtype=self.dtype, name="proj")(y.reshape(x.shape))
        return _dropout(train)(y)


class PlainRefinement(nn.Module):
    """As `tokret.models.heads.token.refinement.RefinementLayer`."""

    dtype: Any

    @nn.compact
    def __call__(
        self, tokens: Float[Array, "b l d"], x: Float[Array, "b n d"], train: bool
    ) -> Float[Array, "b l d"]:
        """Returns the refined tokens."""
        width, dtype = x.shape[-1], self.dtype
        drop, path = _dropout(train), _dropout(train, (1, 2))
        y = nn.LayerNorm(1e-5, dtype=dtype, name="norm1")(tokens)
        tokens = tokens + path(PlainAttention(dtype, name="cross_attn")(y, x, train))
        y = nn.gelu(nn.Dense(2 * width, dtype=dtype, name="fc1")(tokens), False)
        y = drop(nn.Dense(width, dtype=dtype, name="fc2")(drop(y)))
        tokens = tokens + path(y)
        y = nn.LayerNorm(1e-5, dtype=dtype, name="norm2")(tokens)
        return tokens + path(PlainAttention(dtype, name="self_attn")(y, y, train))


class PlainTokenHead(nn.Module):
    """As `tokret.models.heads.token.head.TokenHead` in the released form."""

    dtype: Any
    dim: int = 1024

    @nn.compact
    def __call__(
        self, features: Float[Array, "b h w c"], sizes: None = None, *, train: bool
    ) -> tuple[Float[Array, "b d"], Intermediates]:
        """Aggregates a feature map."""
        dim, dtype = self.dim, self.dtype
        x = nn.Conv(dim, (1, 1), dtype=dtype, name="conv")(features)
        x = _norm(train, dtype, "conv_bn")(x).reshape(len(features), -1, dim)
        x = _PlainEncoder(dtype, name="encoder0")(x, train)
        tokens = _PlainTokenizer(dtype, name="tokenizer")(x)
        for i in range(REFINEMENT_LAYERS):
            tokens = PlainRefinement(dtype, name=f"decoder{i}")(tokens, x, train)
        joined = tokens.reshape(len(tokens), -1)
        embedding = nn.Dense(dim, dtype=dtype, name="proj")(joined)
        return _norm(train, dtype, "proj_bn")(embedding), {}


class _PlainEncoder(nn.Module):
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"], train: bool) -> Array:
        path = _dropout(train, (1, 2))
        x = x + path(PlainAttention(self.dtype, name="attn")(x, x, train))
        y = _norm(train, self.dtype, "bn")(x)
        return x + path(nn.Dense(x.shape[-1], dtype=self.dtype, name="mlp")(y))


class _PlainTokenizer(nn.Module):
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b l d"]:
        width = x.shape[-1]
        query = self.param("query", nn.initializers.normal(1.0), (TOKENS, width))
        logits = jnp.einsum("ld,bnd->bln", query.astype(x.dtype), x)
        weights = jax.nn.softmax(logits, axis=1)
        gathered = jnp.einsum("bln,bnd->bld", weights, x)
        y = nn.Dense(width, dtype=self.dtype, name="linear")(gathered)
        return nn.LayerNorm(1e-5, dtype=self.dtype, name="norm")(y)


def plain_token(blocks: tuple[int, ...], dtype: Any) -> RetrievalNet:
    """Token as released over a ResNet of these numbers of blocks."""
    return RetrievalNet(PlainResNet(blocks, dtype), PlainTokenHead(dtype))
