"""EfficientNet-Lite trunks (Tan and Le, ICML 2019; Lite by Liu, 2020): no attention.

Unlike EfficientNet the Lite variants have no squeeze-and-excitation, and use ReLU6. The
released weights need TensorFlow's SAME padding. With a stride of 2 it puts k // 2
pixels before the first one of an odd side and one fewer before that of an even side,
so where a window starts depends on an image's own sides, not on its canvas's: padding
is explicit here and shifts every image of a batch by the parity of its true sides.
"""

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn

from tokret.models.layers import BatchNorm, PointwiseConv
from tokret.models.masking import Sizes, downsampled, mask_padding
from tokret.models.preprocessing import PixelScale
from tokret.models.trunks import Trunk, TrunkOutput
from tokret.models.trunks.convolutions import Conv, DepthwiseConv
from tokret.shapes import Array, Float

# (byte - 127) / 128, as the released weights were trained.
LITE = PixelScale((127 / 255,) * 3, (128 / 255,) * 3)


class BlockGroup(NamedTuple):
    """Blocks of one kind; only the first has the stride."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


LITE0 = (
    BlockGroup(1, 3, 1, 1, 16),
    BlockGroup(2, 3, 2, 6, 24),
    BlockGroup(2, 5, 2, 6, 40),
    BlockGroup(3, 3, 2, 6, 80),
    BlockGroup(3, 5, 1, 6, 112),
    BlockGroup(4, 5, 2, 6, 192),
    BlockGroup(1, 3, 1, 6, 320),
)


def same_padded(
    x: Float[Array, "b h w c"], sizes: Sizes, kernel: int, stride: int
) -> Float[Array, "b h2 w2 c"]:
    """Pads with zeros as TensorFlow's SAME does for each image's true area.

    Everything outside the true areas is set to zero. The convolution that follows, with
    an odd side `kernel`, a stride of 1 or 2 and no padding, then maps sides n of the
    canvas and of the true areas to ceil(n / stride).
    """
    half = kernel // 2
    x = mask_padding(x, sizes)
    if stride == 1:
        return jnp.pad(x, [(0, 0), (half, half), (half, half), (0, 0)])
    if sizes is None:
        before = [half - (n % 2 == 0) for n in x.shape[1:3]]
        return jnp.pad(x, [(0, 0), *((n, half) for n in before), (0, 0)])
    after = [half + n % 2 for n in x.shape[1:3]]
    x = jnp.pad(x, [(0, 0), *((half, n) for n in after), (0, 0)])
    odd = (sizes % 2 == 1)[:, :, None, None, None]  # [b, 2, 1, 1, 1]
    x = jnp.where(odd[:, 0], x[:, :-1], x[:, 1:])
    return jnp.where(odd[:, 1], x[:, :, :-1], x[:, :, 1:])


def _norm(name: str) -> BatchNorm:
    return BatchNorm(momentum=0.99, epsilon=1e-3, name=name)


class InvertedBottleneck(nn.Module):
    """1x1 to more channels, a depthwise convolution, 1x1 to few; a shortcut if it fits.

    With an expansion of 1 there is no first convolution.
    """

    group: BlockGroup
    stride: int
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], sizes: Sizes, train: bool
    ) -> Float[Array, "b h2 w2 c2"]:
        """Returns the block's output; `sizes` are the true sizes of its input."""
        group, y = self.group, x
        if group.expansion != 1:
            wide = group.expansion * x.shape[-1]
            y = PointwiseConv(wide, self.dtype, name="expand_conv")(y)
            y = nn.relu6(_norm("expand_bn")(y, train=train))
        convolve = DepthwiseConv(
            group.kernel, self.stride, self.dtype, name="depthwise_conv"
        )
        y = convolve(same_padded(y, sizes, group.kernel, self.stride))
        y = nn.relu6(_norm("depthwise_bn")(y, train=train))
        y = PointwiseConv(group.channels, self.dtype, name="project_conv")(y)
        y = _norm("project_bn")(y, train=train)
        return x + y if self.stride == 1 and x.shape == y.shape else y


class EfficientNetLite(Trunk):
    """Stem to the last 1x1 convolution; `head` is the number of its channels."""

    groups: tuple[BlockGroup, ...] = LITE0
    stem: int = 32
    head: int = 1280
    pixels: PixelScale = dataclasses.field(default=LITE, kw_only=True)

    @property
    def num_stages(self) -> int:
        """The scales of features: strides 2, 4 and so on."""
        return self._blocks()[-1][0]

    @property
    def frozen_modules(self) -> tuple[str, ...]:
        """Names of the modules that are frozen."""
        last = self.num_stages
        stages = {"stem_conv": 1, "stem_bn": 1, "head_conv": last, "head_bn": last}
        stages |= {f"block{i}": stage for i, (stage, *_) in enumerate(self._blocks())}
        return tuple(n for n, stage in stages.items() if stage <= self.frozen_stages)

    def _blocks(self) -> list[tuple[int, BlockGroup, int]]:
        """Every block's stage, group and stride."""
        blocks, stage = [], 1
        for group in self.groups:
            for i in range(group.repeats):
                stride = group.stride if i == 0 else 1
                stage += stride == 2
                blocks.append((stage, group, stride))
        return blocks

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w 3"], sizes: Sizes = None, *, train: bool
    ) -> TrunkOutput:
        """Computes the features; see `Trunk`.

        Of the stages, each is a scale's last output: block1 has a stride of 2, and the
        last one is the features.
        """
        trains = self.trains(1, train)
        x = same_padded(images.astype(self.dtype), sizes, kernel=3, stride=2)
        stem = Conv(self.stem, 3, 2, self.dtype, padded=True, name="stem_conv")
        x = nn.relu6(_norm("stem_bn")(stem(x, train=trains), train=trains))
        sizes = downsampled(sizes)
        stages: dict[str, Array] = {}
        block = self.maybe_remat(InvertedBottleneck)
        for i, (stage, group, stride) in enumerate(self._blocks()):
            if stride == 2:
                x = stages[f"block{stage - 1}"] = self.stop_gradient(stage - 1, x)
            x = block(group, stride, self.dtype, name=f"block{i}")(
                x, sizes, self.trains(stage, train)
            )
            sizes = downsampled(sizes) if stride == 2 else sizes
        x = PointwiseConv(self.head, self.dtype, name="head_conv")(x)
        x = nn.relu6(_norm("head_bn")(x, train=self.trains(stage, train)))
        x = stages[f"block{stage}"] = self.stop_gradient(stage, x)
        return x, sizes, stages
