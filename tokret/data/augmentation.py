"""The released augmentation: random resized crop, flip, colour jitter.

Distributions are torchvision's (RandomResizedCrop, RandomHorizontalFlip, ColorJitter
with probability 0.8); every draw comes from the generator that is passed in, so that
neither threads nor processes change a view. `python -m benchmarks input` measures its
speed.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np

from tokret.config.tree import AugmentationConfig
from tokret.data import colour
from tokret.data.decoding import read_header
from tokret.data.resizing import resize
from tokret.shapes import UInt8

Image = UInt8[np.ndarray, "h w 3"]
Crop = tuple[int, int, int, int]  # top, left, height, width in pixels
ASPECTS = (3 / 4, 4 / 3)
ATTEMPTS = 10
REDUCTIONS = (8, 4, 2)  # of a photo's sides, that a JPEG decoder offers
SPARE = 2  # times the view's side that a reduced crop must still have


class Variation(NamedTuple):
    """How one view differs from its photo: a crop, a flip, and changes of colours."""

    crop: Crop
    flip: bool
    changes: tuple[colour.Change, ...]


class Augmentation(AugmentationConfig):
    """Makes random views of photos; its attributes are the fields of the config."""

    def __call__(
        self, image: Image, rng: np.random.Generator
    ) -> UInt8[np.ndarray, "s s 3"]:
        """Returns one augmented view of a decoded photo."""
        return make_view(image, self.draw(image.shape[:2], rng), self.size)

    def view(
        self, encoded: bytes, name: str, rng: np.random.Generator
    ) -> UInt8[np.ndarray, "s s 3"]:
        """Decodes a photo and returns one augmented view of it.

        The same as decoding and calling, except that a JPEG is decoded at a reduced
        size if the crop is still at least twice as large as the view.

        Args:
          encoded: the file's bytes.
          name: for errors.
          rng: the source of randomness.

        Raises:
          UserError: if the photo cannot be decoded.
        """
        photo = read_header(encoded, name)
        if not photo.is_jpeg:
            return self(photo.pixels(), rng)
        drawn = self.draw(photo.shape, rng)
        reduction = reduction_for(drawn.crop, self.size)
        drawn = drawn._replace(crop=reduced(drawn.crop, reduction))
        return make_view(photo.pixels(reduction), drawn, self.size)

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Variation:
        """Draws the variation of a photo of this height and width."""
        crop = random_crop(shape, self.min_area, rng)
        flip, jitter = rng.random(2) < (self.flip, self.jitter)
        return Variation(crop, bool(flip), self.draw_changes(rng) if jitter else ())

    def draw_changes(self, rng: np.random.Generator) -> tuple[colour.Change, ...]:
        """Draws colour changes, in random order; none where the range is zero."""
        spreads = (self.brightness, self.contrast, self.saturation, self.hue)
        names = ("brightness", "contrast", "saturation", "hue")
        lowest = [max(0.0, 1 - spread) for spread in spreads[:3]] + [-self.hue]
        highest = [1 + spread for spread in spreads[:3]] + [self.hue]
        amounts = rng.uniform(lowest, highest).tolist()
        order = rng.permutation(len(names)).tolist()
        return tuple((names[i], amounts[i]) for i in order if spreads[i])


def make_view(
    image: Image, variation: Variation, size: int
) -> UInt8[np.ndarray, "size size 3"]:
    """Crops, resizes, flips and changes the colours of a photo."""
    top, left, height, width = variation.crop
    view = resize(image[top : top + height, left : left + width], size)
    if variation.flip:
        view = np.asarray(cv2.flip(view, 1))
    return colour.vary(view, variation.changes)


def random_crop(
    shape: tuple[int, ...], min_area: float, rng: np.random.Generator
) -> Crop:
    """Draws a crop: area uniform, aspect log-uniform; central if ten do not fit.

    Args:
      shape: the photo's height and width.
      min_area: smallest fraction of its area.
      rng: the source of randomness.

    Returns:
      Top, left, height and width.
    """
    height, width = shape
    for _ in range(ATTEMPTS):
        # One call for all four: the time is spent on calls.
        fraction, stretch, down, across = rng.random(4).tolist()
        area = height * width * (min_area + (1 - min_area) * fraction)
        aspect = ASPECTS[0] * (ASPECTS[1] / ASPECTS[0]) ** stretch
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(down * (height - h + 1)), int(across * (width - w + 1)), h, w
    return central_crop(shape)


def central_crop(shape: tuple[int, ...]) -> Crop:
    """Returns the largest crop of a permitted aspect, from the middle."""
    height, width = shape
    aspect = min(max(width / height, ASPECTS[0]), ASPECTS[1])
    w = min(width, max(1, round(height * aspect)))
    h = min(height, max(1, round(w / aspect)))
    return (height - h) // 2, (width - w) // 2, h, w


def reduction_for(crop: Crop, size: int) -> int:
    """Returns the factor by which a JPEG's decoder may reduce it: 1, 2, 4 or 8.

    The result is at least twice the final size, so that the blur of resizing hides that
    a reduced block of a JPEG is sharper than an average of its pixels.
    """
    shorter = min(crop[2:])
    fitting = (k for k in REDUCTIONS if shorter >= SPARE * size * k)
    return next(fitting, 1)


def reduced(crop: Crop, reduction: int) -> Crop:
    """Returns the crop of the reduced photo that covers a crop."""
    top, left, height, width = crop
    bottom, right = -(-(top + height) // reduction), -(-(left + width) // reduction)
    top, left = top // reduction, left // reduction
    return top, left, bottom - top, right - left


def centre_crop(image: Image, size: int) -> UInt8[np.ndarray, "s s 3"]:
    """The released validation view: shorter side to size * 8/7, then the centre.

    The centre is cropped before resizing, which gives the same in less time.
    """
    height, width = image.shape[:2]
    side = max(1, round(min(height, width) * 7 / 8))
    top, left = (height - side) // 2, (width - side) // 2
    return resize(image[top : top + side, left : left + side], size)
