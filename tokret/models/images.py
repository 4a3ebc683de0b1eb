"""What a model takes: normalised RGB."""

import jax.numpy as jnp

from tokret.shapes import Array, Float, UInt8

# ImageNet's, as torchvision's weights and the released code have them.
MEAN = (0.485, 0.456, 0.406)
STANDARD_DEVIATION = (0.229, 0.224, 0.225)


def normalise(images: UInt8[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
    """Scales bytes to [0, 1], then to ImageNet's mean and deviation; on the device.

    Images travel to the device as bytes: a quarter of the size in float32.
    """
    mean, deviation = jnp.asarray(MEAN), jnp.asarray(STANDARD_DEVIATION)
    return (images.astype(mean.dtype) / 255.0 - mean) / deviation
