"""ResNet trunks (He et al., CVPR 2016), as torchvision builds them: strides on 3x3.

Every padding is PyTorch's explicit one. With `sizes` the images of a batch may have
different true sizes inside one canvas: what lies outside is set to zero before every
operation that mixes positions, and those zeros are then exactly the convolution's own
padding, so an image gives what it would give alone.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from tokret.models.kernels.batch_norm import BatchNorm
from tokret.models.kernels.expand_conv_bn import widen
from tokret.models.kernels.matmul import precision_of
from tokret.models.kernels.max_pool import max_pool
from tokret.models.kernels.pointwise import PointwiseConv
from tokret.models.kernels.winograd import Conv3x3
from tokret.models.layers import he_normal, relu_of_sum
from tokret.models.masking import halve, inside, zero_outside
from tokret.models.preprocessing import IMAGENET, PixelScale
from tokret.models.second_order import SecondOrderAttention
from tokret.models.trunks.frozen import Frozen
from tokret.models.trunks.stem import Stem
from tokret.shapes import Array, Float, Int

SECOND_ORDER_STAGE = 4  # block4, after which the second-order block comes
EXPANSION = 4  # a bottleneck's last convolution has 4 times the width of its first


def _conv(
    features: int, kernel: int, dtype: Any, name: str, stride: int = 1
) -> nn.Module:
    if kernel == 1:
        return PointwiseConv(features, dtype, stride, name=name)
    return nn.Conv(
        features,
        (kernel, kernel),
        (stride, stride),
        padding=[(kernel // 2, kernel // 2)] * 2,
        use_bias=False,
        dtype=dtype,
        precision=precision_of(dtype),
        kernel_init=he_normal,
        name=name,
    )


def _conv3x3(
    features: int, dtype: Any, name: str, stride: int, train: bool
) -> Callable[[Array], Array]:
    if stride == 1:
        return functools.partial(Conv3x3(features, dtype, name=name), train=train)
    return _conv(features, 3, dtype, name, stride)


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride), 1x1 convolutions beside a shortcut.

    Attributes:
      width: channels of the first two convolutions; the output has four times as many.
      stride: 1 or 2.
      dtype: dtype of the computation.
    """

    width: int
    stride: int
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], sizes: Int[Array, "b 2"] | None, train: bool
    ) -> Float[Array, "b h2 w2 c4"]:
        """Returns the block's output; `sizes` are the true sizes of its input."""
        conv = functools.partial(_conv, dtype=self.dtype)
        out = EXPANSION * self.width
        y = conv(self.width, 1, name="conv1")(x)
        y = BatchNorm(name="bn1")(y, train=train, relu=True)
        middle = _conv3x3(self.width, self.dtype, "conv2", self.stride, train)
        y = middle(zero_outside(y, sizes))
        y = BatchNorm(name="bn2")(y, train=train, relu=True)
        y = widen(y, out, self.dtype, "conv3", "bn3", train=train)
        if self.stride != 1 or x.shape[-1] != out:
            x = x[:, :: self.stride, :: self.stride]
            names = ("downsample_conv", "downsample_bn")
            x = widen(x, out, self.dtype, *names, train=train)
        return relu_of_sum(x, y)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, the first with the stride, beside a shortcut.

    Attributes:
      width: channels.
      stride: 1 or 2.
      dtype: dtype of the computation.
    """

    width: int
    stride: int
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], sizes: Int[Array, "b 2"] | None, train: bool
    ) -> Float[Array, "b h2 w2 c2"]:
        """Returns the block's output; `sizes` are the true sizes of its input."""
        conv = functools.partial(_conv, dtype=self.dtype)
        first = _conv3x3(self.width, self.dtype, "conv1", self.stride, train)
        y = first(zero_outside(x, sizes))
        y = BatchNorm(name="bn1")(y, train=train, relu=True)
        after = halve(sizes) if self.stride == 2 else sizes
        second = _conv3x3(self.width, self.dtype, "conv2", 1, train)
        y = second(zero_outside(y, after))
        y = BatchNorm(name="bn2")(y, train=train)
        if self.stride != 1 or x.shape[-1] != self.width:
            x = conv(self.width, 1, name="downsample_conv", stride=self.stride)(x)
            x = BatchNorm(name="downsample_bn")(x, train=train)
        return relu_of_sum(x, y)


class ResNet(nn.Module):
    """Stem to the last stage, without pooling and classifier.

    Attributes:
      blocks: blocks in each stage; the first block of all stages but the first has
        stride 2.
      block: Bottleneck, or BasicBlock as in ResNet-18.
      width: channels of the stem and `width` of the first stage's blocks.
      second_order: whether a second-order block of a quarter of the channels follows
        the third stage (block4), as in SOLAR's released trunk.
      dtype: dtype of the computation; parameters and statistics are float32.
      remat: whether training computes a block's insides again for its gradient, rather
        than keep them: less memory for about a third more work.
      frozen_stages: stages that stand still in training, from block1 on.
      pixels: the scale of the images it takes.
    """

    blocks: tuple[int, ...]
    block: type[nn.Module] = Bottleneck
    width: int = 64
    second_order: bool = False
    dtype: Any = jnp.float32
    remat: bool = False
    frozen_stages: int = 0
    pixels: PixelScale = IMAGENET

    @property
    def frozen_modules(self) -> tuple[str, ...]:
        """Names of the modules that stand still."""
        stages = [["conv1", "bn1"]] + [
            [f"layer{stage}_block{i}" for i in range(count)]
            for stage, count in enumerate(self.blocks, 1)
        ]
        if self.second_order and self.frozen_stages > SECOND_ORDER_STAGE:
            stages[0].append("soa4")
        return tuple(sum(stages[: self.frozen_stages], start=[]))

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "b h w 3"],
        sizes: Int[Array, "b 2"] | None = None,
        *,
        train: bool,
    ) -> tuple[Float[Array, "b h2 w2 c"], Int[Array, "b 2"] | None, dict[str, Array]]:
        """Computes the last stage's features.

        Args:
          images: normalised images, padded at the right and the bottom.
          sizes: true heights and widths, or None if all fill the canvas.
          train: whether batch norms use the batch's own statistics.

        Returns:
          The features, the true sizes at their depth, and every stage's output under
          the released names block1 (stem) to block5; soa4 is that of the second-order
          block between block4 and block5.
        """
        frozen = Frozen(self.frozen_stages, 1 + len(self.blocks))
        x = zero_outside(images.astype(self.dtype), sizes)
        x = Stem(self.width, self.dtype, name="conv1")(x)
        x = BatchNorm(name="bn1")(x, train=frozen.learns(1, train), relu=True)
        sizes = halve(sizes)
        # Nothing here is negative, so zeros around the true area pool as -inf would.
        x = max_pool(zero_outside(x, sizes))
        sizes = halve(sizes)
        x = frozen.leave(1, x)
        stages: dict[str, Array] = {"block1": x}
        block = nn.remat(self.block, static_argnums=(3,)) if self.remat else self.block
        for stage, count in enumerate(self.blocks, 2):
            learns = frozen.learns(stage, train)
            for i in range(count):
                stride = 2 if stage > 2 and i == 0 else 1
                x = block(
                    self.width * 2 ** (stage - 2),
                    stride,
                    self.dtype,
                    name=f"layer{stage - 1}_block{i}",
                )(x, sizes, learns)
                sizes = halve(sizes) if stride == 2 else sizes
            x = stages[f"block{stage}"] = frozen.leave(stage, x)
            if self.second_order and stage == SECOND_ORDER_STAGE:
                learns = frozen.learns(stage + 1, train)
                x = stages["soa4"] = self._second_order(x, sizes, learns)
        return x, sizes, stages

    def _second_order(
        self, x: Float[Array, "b h w c"], sizes: Int[Array, "b 2"] | None, train: bool
    ) -> Float[Array, "b h w c"]:
        x = zero_outside(x, sizes)
        mask = None if sizes is None else inside(sizes, *x.shape[1:3])
        block = SecondOrderAttention(x.shape[-1] // 4, self.dtype, name="soa4")
        return block(x, mask, train=train)
