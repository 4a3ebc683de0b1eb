"""A 1x1 convolution to more channels and its batch norm, as a bottleneck ends.

A training step on a TPU or GPU is bound by memory, and what a bottleneck widens is most
of it. In bfloat16 it is looked at as little as can be there (`bn_by_moments`).
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from tokret.models.kernels.batch_norm import by_autodiff
from tokret.models.kernels.bn_by_moments import back_by_moments, by_moments
from tokret.models.kernels.pointwise import mix_channels
from tokret.models.layers import he_normal
from tokret.models.normalisation import (
    Normalised,
    Normalising,
    normalised,
)
from tokret.shapes import Array, Float

MOMENTS = (jnp.bfloat16,)  # dtypes of which moments are taken


def by_outputs(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "1 1 c d"],
    scale: Float[Array, " d"],
    bias: Float[Array, " d"],
    shift: Float[Array, " d"],
    epsilon: float,
) -> Normalised:
    """Convolves, and normalises by the outputs' own mean and biased variance.

    Args:
      x: inputs.
      kernel: of the convolution.
      scale: of the batch norm.
      bias: of the batch norm.
      shift: the running mean.
      epsilon: added to the variance.

    Returns:
      The normalised outputs, and their mean and variance before that.
    """
    y = mix_channels(x, kernel, 1)
    return by_autodiff(y, scale, bias, shift, epsilon, relu=False)


class _Kernel(nn.Module):
    """The kernel of `PointwiseConv`, by the same name, without the convolution."""

    channels: int

    @nn.compact
    def __call__(self, inputs: int) -> Float[Array, "1 1 c d"]:
        shape = (1, 1, inputs, self.channels)
        return jnp.asarray(self.param("kernel", he_normal, shape, jnp.float32))


class _NormAfter(Normalising):
    """A batch norm that is given a convolution's input and kernel."""

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        kernel: Float[Array, "1 1 c d"],
        *,
        train: bool,
    ) -> Float[Array, "b h w d"]:
        scale, bias, (mean, var) = self.of_channels(kernel.shape[-1])
        if not train:
            y = mix_channels(x, kernel, 1)
            return normalised(y, scale, bias, mean, var, self.epsilon)
        by_y = functools.partial(by_outputs, epsilon=self.epsilon)
        y, mean, var = jax.lax.platform_dependent(
            *(x, kernel, scale, bias, mean),
            tpu=self._by_moments if x.dtype in MOMENTS else by_y,
            cuda=self._back_by_moments if x.dtype in MOMENTS else by_y,
            default=by_y,
        )
        self.keep(mean, var, x.size // x.shape[-1])
        return y

    def _by_moments(
        self, x: Array, kernel: Array, scale: Array, bias: Array, shift: Array
    ) -> Normalised:
        del shift  # only sums over outputs want it
        found: Normalised = by_moments(x, kernel, scale, bias, self.epsilon)
        return found

    def _back_by_moments(self, *arrays: Array) -> Normalised:
        found: Normalised = back_by_moments(*arrays, self.epsilon)
        return found


def widen(
    x: Float[Array, "b h w c"],
    channels: int,
    dtype: Any,
    conv: str,
    norm: str,
    *,
    train: bool,
) -> Float[Array, "b h w d"]:
    """Convolves to more channels and normalises.

    The layers belong to the module that calls it.

    Args:
      x: inputs.
      channels: of the outputs.
      dtype: dtype of the computation.
      conv: name of the convolution.
      norm: name of the batch norm.
      train: whether the batch's own statistics are used.
    """
    kernel = _Kernel(channels, name=conv)(x.shape[-1]).astype(dtype)
    return _NormAfter(name=norm)(x.astype(dtype), kernel, train=train)
