"""ResNet trunks (He et al., CVPR 2016), as torchvision builds them: strides on 3x3.

Every padding is PyTorch's explicit one.
"""

from typing import Any

from flax import linen as nn

from tokret.models.kernels.max_pool import max_pool
from tokret.models.kernels.residual import relu_of_sum
from tokret.models.layers import BatchNorm, PointwiseConv
from tokret.models.masking import Sizes, downsampled, mask_padding
from tokret.models.second_order import SecondOrderAttention
from tokret.models.trunks import Trunk, TrunkOutput
from tokret.models.trunks.convolutions import Conv, expand_and_normalise
from tokret.shapes import Array, Float

SECOND_ORDER_STAGE = 4  # block4, which the second-order block follows
EXPANSION = 4  # a bottleneck's last convolution has 4 times the width of its first


class Block(nn.Module):
    """A residual block: (x, true sizes of x, train) -> [b, h2, w2, c2].

    `width` is the number of channels of its 3x3 convolutions.
    """

    width: int
    stride: int
    dtype: Any


class Bottleneck(Block):
    """1x1, 3x3 (with the stride), 1x1 convolutions beside a shortcut."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], sizes: Sizes, train: bool
    ) -> Float[Array, "b h2 w2 c4"]:
        """Returns the block's output; `sizes` are the true sizes of its input."""
        out = EXPANSION * self.width
        y = PointwiseConv(self.width, self.dtype, name="conv1")(x)
        y = BatchNorm(name="bn1")(y, train=train, relu=True)
        conv = Conv(self.width, 3, self.stride, self.dtype, name="conv2")
        y = conv(mask_padding(y, sizes), train=train)  # [b, h2, w2, width]
        y = BatchNorm(name="bn2")(y, train=train, relu=True)
        y = expand_and_normalise(y, out, self.dtype, "conv3", "bn3", train=train)
        if self.stride != 1 or x.shape[-1] != out:
            x = x[:, :: self.stride, :: self.stride]
            names = ("downsample_conv", "downsample_bn")
            x = expand_and_normalise(x, out, self.dtype, *names, train=train)
        return relu_of_sum(x, y)


class BasicBlock(Block):
    """Two 3x3 convolutions, the first with the stride, beside a shortcut."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], sizes: Sizes, train: bool
    ) -> Float[Array, "b h2 w2 c2"]:
        """Returns the block's output; `sizes` are the true sizes of its input."""
        conv = Conv(self.width, 3, self.stride, self.dtype, name="conv1")
        y = conv(mask_padding(x, sizes), train=train)  # [b, h2, w2, width]
        y = BatchNorm(name="bn1")(y, train=train, relu=True)
        sizes = downsampled(sizes) if self.stride == 2 else sizes
        conv = Conv(self.width, 3, 1, self.dtype, name="conv2")
        y = conv(mask_padding(y, sizes), train=train)
        y = BatchNorm(name="bn2")(y, train=train)
        if self.stride != 1 or x.shape[-1] != self.width:
            shortcut = PointwiseConv(
                self.width, self.dtype, self.stride, name="downsample_conv"
            )
            x = BatchNorm(name="downsample_bn")(shortcut(x), train=train)
        return relu_of_sum(x, y)


class ResNet(Trunk):
    """Stem to the last stage; the first block of every stage but the first strides.

    Attributes:
      blocks: blocks in each stage.
      block: Bottleneck, or BasicBlock as in ResNet-18.
      width: channels of the stem and `width` of the first stage's blocks.
      second_order: whether a second-order block of a quarter of the channels follows
        the third stage (block4), as in SOLAR's released trunk.
    """

    blocks: tuple[int, ...]
    block: type[Block] = Bottleneck
    width: int = 64
    second_order: bool = False

    @property
    def num_stages(self) -> int:
        """The stem, block1, and the stages of blocks."""
        return 1 + len(self.blocks)

    @property
    def frozen_modules(self) -> tuple[str, ...]:
        """Names of the modules that are frozen."""
        stages = [["conv1", "bn1"]] + [
            [f"layer{stage}_block{i}" for i in range(count)]
            for stage, count in enumerate(self.blocks, 1)
        ]
        if self.second_order and self.frozen_stages > SECOND_ORDER_STAGE:
            stages[0].append("soa4")
        return tuple(sum(stages[: self.frozen_stages], start=[]))

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w 3"], sizes: Sizes = None, *, train: bool
    ) -> TrunkOutput:
        """Computes the features; see `Trunk`.

        Of the stages, block1 is the stem, and soa4 the output of the second-order block
        between block4 and block5.
        """
        x = mask_padding(images.astype(self.dtype), sizes)
        trains = self.trains(1, train)
        stem = Conv(self.width, 7, 2, self.dtype, name="conv1")
        x = stem(x, train=trains)  # [b, h / 2, w / 2, c]
        x = BatchNorm(name="bn1")(x, train=trains, relu=True)
        sizes = downsampled(sizes)
        # Nothing here is negative, so zeros around the true area pool as -inf would.
        x = max_pool(mask_padding(x, sizes))  # [b, h / 4, w / 4, c]
        sizes = downsampled(sizes)
        x = self.stop_gradient(1, x)
        stages: dict[str, Array] = {"block1": x}
        block = self.maybe_remat(self.block)
        for stage, count in enumerate(self.blocks, 2):
            trains, width = self.trains(stage, train), self.width * 2 ** (stage - 2)
            for i in range(count):
                stride = 2 if stage > 2 and i == 0 else 1
                name = f"layer{stage - 1}_block{i}"
                x = block(width, stride, self.dtype, name=name)(x, sizes, trains)
                sizes = downsampled(sizes) if stride == 2 else sizes
            x = stages[f"block{stage}"] = self.stop_gradient(stage, x)
            if self.second_order and stage == SECOND_ORDER_STAGE:
                soa = SecondOrderAttention(x.shape[-1] // 4, self.dtype, name="soa4")
                trains = self.trains(stage + 1, train)
                x = stages["soa4"] = soa(x, sizes, train=trains)
        return x, sizes, stages
