"""Pixel values as a model takes them: RGB, scaled as its trunk was trained."""

from typing import NamedTuple

import jax.numpy as jnp

from tokret.shapes import Array, Float, UInt8


class PixelScale(NamedTuple):
    """Mean and standard deviation of each channel, of pixels in [0, 1]."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


# ImageNet's, as torchvision's weights and the released code have them.
IMAGENET = PixelScale((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def normalise(
    images: UInt8[Array, "b h w 3"], scale: PixelScale
) -> Float[Array, "b h w 3"]:
    """Scales bytes to [0, 1], then by mean and standard deviation; on the device.

    Images are copied to the device as bytes: a quarter of their size in float32.
    """
    mean, std = jnp.asarray(scale.mean), jnp.asarray(scale.std)
    return (images.astype(mean.dtype) / 255.0 - mean) / std
