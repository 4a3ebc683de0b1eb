"""EfficientNet-Lite trunks (Tan and Le, ICML 2019; Lite by Liu, 2020): no attention.

Against EfficientNet the Lite variants leave squeeze-and-excitation out and use ReLU6.
The released weights want TensorFlow's SAME padding. With a stride of 2 it puts k // 2
pixels before the first one of an odd side and one fewer before that of an even side,
so where a window starts depends on an image's own sides, not on its canvas's: padding
is explicit here and shifts every image of a batch by the parity of its true sides.
Then, as in `resnet`, an image gives what it would give alone.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn

from tokret.models.kernels.batch_norm import BatchNorm
from tokret.models.kernels.depthwise import DepthwiseConv
from tokret.models.kernels.matmul import precision_of
from tokret.models.kernels.pointwise import PointwiseConv
from tokret.models.layers import he_normal, linear
from tokret.models.masking import halve, zero_outside
from tokret.models.preprocessing import PixelScale
from tokret.models.trunks.frozen import Frozen
from tokret.shapes import Array, Float, Int

# (byte - 127) / 128, as the released weights were trained.
LITE = PixelScale((127 / 255,) * 3, (128 / 255,) * 3)


class Group(NamedTuple):
    """Blocks of one kind; only the first has the stride."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


LITE0 = (
    Group(1, 3, 1, 1, 16),
    Group(2, 3, 2, 6, 24),
    Group(2, 5, 2, 6, 40),
    Group(3, 3, 2, 6, 80),
    Group(3, 5, 1, 6, 112),
    Group(4, 5, 2, 6, 192),
    Group(1, 3, 1, 6, 320),
)


def same_padded(
    x: Float[Array, "b h w c"],
    sizes: Int[Array, "b 2"] | None,
    kernel: int,
    stride: int,
) -> Float[Array, "b h2 w2 c"]:
    """Pads with zeros as TensorFlow's SAME does for each image's true area.

    Args:
      x: inputs; what lies outside the true areas is set to zero.
      sizes: true heights and widths, or None if all fill the canvas.
      kernel: side of the convolution that follows, odd.
      stride: its stride, 1 or 2.

    Returns:
      Inputs for a convolution without padding, which maps sides n of the canvas and of
      the true areas to ceil(n / stride).
    """
    half = kernel // 2
    x = zero_outside(x, sizes)
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

    Attributes:
      kind: its numbers; with an expansion of 1 there is no first convolution.
      stride: stride of the depthwise convolution.
      dtype: dtype of the computation.
    """

    kind: Group
    stride: int
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], sizes: Int[Array, "b 2"] | None, train: bool
    ) -> Float[Array, "b h2 w2 c2"]:
        """Returns the block's output; `sizes` are the true sizes of its input."""
        kind, y = self.kind, x
        if kind.expansion != 1:
            wide = kind.expansion * x.shape[-1]
            y = PointwiseConv(wide, self.dtype, name="expand_conv")(y)
            y = nn.relu6(_norm("expand_bn")(y, train=train))
        convolve = DepthwiseConv(
            kind.kernel, self.stride, self.dtype, name="depthwise_conv"
        )
        y = convolve(same_padded(y, sizes, kind.kernel, self.stride))
        y = nn.relu6(_norm("depthwise_bn")(y, train=train))
        y = PointwiseConv(kind.channels, self.dtype, name="project_conv")(y)
        y = _norm("project_bn")(y, train=train)
        return x + y if self.stride == 1 and x.shape == y.shape else y


class EfficientNetLite(nn.Module):
    """Stem to the last 1x1 convolution, without pooling and classifier.

    Attributes:
      groups: the blocks, and where their strides lie.
      stem: channels of the stem.
      head: channels of the features.
      dtype: dtype of the computation; parameters and statistics are float32.
      remat: whether training computes the insides of blocks twice, to save memory.
      frozen_stages: stages that stand still in training, from block1 on.
      pixels: the scale of the images it takes.
    """

    groups: tuple[Group, ...] = LITE0
    stem: int = 32
    head: int = 1280
    dtype: Any = jnp.float32
    remat: bool = False
    frozen_stages: int = 0
    pixels: PixelScale = LITE

    @property
    def frozen_modules(self) -> tuple[str, ...]:
        """Names of the modules that stand still."""
        plan = self._plan()
        last = plan[-1][0]
        stages = {"stem_conv": 1, "stem_bn": 1, "head_conv": last, "head_bn": last}
        stages |= {f"block{i}": stage for i, (stage, *_) in enumerate(plan)}
        return tuple(n for n, stage in stages.items() if stage <= self.frozen_stages)

    def _plan(self) -> list[tuple[int, Group, int]]:
        """Every block's stage, its numbers and its stride."""
        plan, stage = [], 1
        for group in self.groups:
            for i in range(group.repeats):
                stride = group.stride if i == 0 else 1
                stage += stride == 2
                plan.append((stage, group, stride))
        return plan

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "b h w 3"],
        sizes: Int[Array, "b 2"] | None = None,
        *,
        train: bool,
    ) -> tuple[Float[Array, "b h2 w2 c"], Int[Array, "b 2"] | None, dict[str, Array]]:
        """Computes the features.

        Args:
          images: normalised images, padded at the right and the bottom.
          sizes: true heights and widths, or None if all fill the canvas.
          train: whether batch norms use the batch's own statistics.

        Returns:
          The features, the true sizes at their depth, and each scale's last output:
          block1 (stride 2), block2 and so on; the last one is the features.
        """
        plan = self._plan()
        frozen = Frozen(self.frozen_stages, plan[-1][0])
        x = self._stem(images.astype(self.dtype), sizes, frozen.learns(1, train))
        sizes = halve(sizes)
        stages: dict[str, Array] = {}
        block = InvertedBottleneck
        if self.remat:
            block = nn.remat(InvertedBottleneck, static_argnums=(3,))
        for i, (stage, kind, stride) in enumerate(plan):
            if stride == 2:
                x = stages[f"block{stage - 1}"] = frozen.leave(stage - 1, x)
            x = block(kind, stride, self.dtype, name=f"block{i}")(
                x, sizes, frozen.learns(stage, train)
            )
            sizes = halve(sizes) if stride == 2 else sizes
        x = PointwiseConv(self.head, self.dtype, name="head_conv")(x)
        x = nn.relu6(_norm("head_bn")(x, train=frozen.learns(stage, train)))
        x = stages[f"block{stage}"] = frozen.leave(stage, x)
        return x, sizes, stages

    def _stem(
        self, x: Float[Array, "b h w 3"], sizes: Int[Array, "b 2"] | None, train: bool
    ) -> Float[Array, "b h2 w2 c"]:
        conv = nn.Conv(
            self.stem,
            (3, 3),
            (2, 2),
            padding="VALID",
            use_bias=False,
            dtype=self.dtype,
            precision=precision_of(self.dtype),
            kernel_init=he_normal,
            name="stem_conv",
        )
        x = conv(same_padded(x, sizes, 3, 2))
        return nn.relu6(_norm("stem_bn")(x, train=train))


class ImageNetClassifier(nn.Module):
    """What the released weights put on the features: a mean and a linear layer.

    Retrieval has no use for it; with it the weights can be checked on photos.

    Attributes:
      classes: ImageNet's 1,000.
      dtype: dtype of the computation.
    """

    classes: int = 1000
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, features: Float[Array, "b h w c"], sizes: Int[Array, "b 2"] | None = None
    ) -> Float[Array, "b classes"]:
        """Returns logits; `sizes` are the features' true sizes, None if full."""
        b, height, width, c = features.shape
        if sizes is None:
            sizes = jnp.full((b, 2), jnp.array([height, width]))
        total = jnp.sum(zero_outside(features, sizes), axis=(1, 2))
        mean = total / jnp.prod(sizes, axis=1, keepdims=True).astype(total.dtype)
        return linear(self.classes, c, self.dtype, "classifier")(mean)
