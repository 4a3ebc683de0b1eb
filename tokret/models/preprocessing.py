"""What a model takes: RGB, scaled as its trunk's weights were trained."""

from typing import NamedTuple

import jax.numpy as jnp

from tokret.shapes import Array, Float, UInt8


class PixelScale(NamedTuple):
    """Mean and deviation of each channel, of pixels in [0, 1]."""

    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]


# ImageNet's, as torchvision's weights and the released code have them.
IMAGENET = PixelScale((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def normalise(
    images: UInt8[Array, "b h w 3"], scale: PixelScale
) -> Float[Array, "b h w 3"]:
    """Scales bytes to [0, 1], then to a mean and a deviation; on the device.

    Images travel to the device as bytes: a quarter of the size in float32.
    """
    mean, deviation = jnp.asarray(scale.mean), jnp.asarray(scale.deviation)
    return (images.astype(mean.dtype) / 255.0 - mean) / deviation
