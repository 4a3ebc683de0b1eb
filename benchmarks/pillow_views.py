"""Training's views by plain Pillow, as torchvision makes them.

Tests compare the pixels of tokret's own views with these.
"""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageEnhance

from tokret.benchmark.input_pipeline import ViewMaker
from tokret.data.augmentation import Augmentation, Crop
from tokret.data.colour import Change

ENHANCERS = {
    "brightness": ImageEnhance.Brightness,
    "contrast": ImageEnhance.Contrast,
    "saturation": ImageEnhance.Color,
}


def decode(encoded: bytes) -> Image.Image:
    """Decodes as most data loaders do."""
    return Image.open(io.BytesIO(encoded)).convert("RGB")


def crop_and_resize(image: Image.Image, crop: Crop, size: int) -> Image.Image:
    """Crops and resizes as torchvision's RandomResizedCrop does."""
    top, left, height, width = crop
    part = image.crop((left, top, left + width, top + height))
    return part.resize((size, size), Image.Resampling.BILINEAR)


def vary_colours(image: Image.Image, changes: Sequence[Change]) -> Image.Image:
    """Changes colours as torchvision's ColorJitter does."""
    for name, amount in changes:
        if name == "hue":
            image = turn_hue(image, amount)
        else:
            image = ENHANCERS[name](image).enhance(amount)
    return image


def turn_hue(image: Image.Image, turn: float) -> Image.Image:
    """Turns the colour circle as torchvision's adjust_hue does."""
    hue, *others = image.convert("HSV").split()
    turned = np.asarray(hue) + np.uint8(int(turn * 255) % 256)  # wraps at 256
    return Image.merge("HSV", (Image.fromarray(turned), *others)).convert("RGB")


def make_view(
    encoded: bytes, vary: Augmentation, rng: np.random.Generator
) -> np.ndarray:
    """Makes the view that `Augmentation.view` makes."""
    image = decode(encoded)
    drawn = vary.draw((image.height, image.width), rng)
    image = crop_and_resize(image, drawn.crop, vary.size)
    if drawn.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(vary_colours(image, drawn.changes))


MAKER = ViewMaker(
    "Pillow",
    Image.fromarray,
    {
        "decode": lambda s: np.asarray(decode(s.encoded)),
        "crop, resize": lambda s: crop_and_resize(s.rival_image, s.crop, s.vary.size),
        "colours": lambda s: vary_colours(s.rival_square, s.changes),
        "whole": lambda s: make_view(s.encoded, s.vary, s.rngs["Pillow"]),
    },
)
