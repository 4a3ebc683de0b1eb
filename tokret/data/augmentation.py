"""The released augmentation: random resized crop, flip, colour jitter.

Distributions are torchvision's (RandomResizedCrop, RandomHorizontalFlip, ColorJitter
with probability 0.8); every draw comes from the generator that is passed in.
"""

import dataclasses
import math

import cv2
import numpy as np

from tokret.configuration import within
from tokret.data import colour
from tokret.data.decoding import decode_fast, read_header
from tokret.data.resizing import resize
from tokret.shapes import UInt8

Image = UInt8[np.ndarray, "h w 3"]
Crop = tuple[int, int, int, int]  # top, left, height, width in pixels
ASPECTS = (3 / 4, 4 / 3)
ATTEMPTS = 10
REDUCTIONS = (8, 4, 2)  # of a photo's sides, that a JPEG decoder offers
SPARE = 2  # times the view's side that a reduced crop must still have


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What is varied, and how much.

    Attributes:
      size: side of the square that comes out, in pixels.
      min_area: smallest share of the photo's area that a crop covers.
      flip: probability of a horizontal flip.
      jitter: probability that the colours are varied at all.
      brightness: factor drawn from 1 +- this.
      contrast: factor drawn from 1 +- this.
      saturation: factor drawn from 1 +- this.
      hue: turn of the colour circle drawn from +- this, in full turns.
    """

    size: int = 512
    min_area: float = 0.2
    flip: float = 0.5
    jitter: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1

    def __post_init__(self) -> None:
        within("augmentation.size", self.size, 1, 2**14)
        within("augmentation.min_area", self.min_area, 0.01, 1)
        for field in ("flip", "jitter"):
            within(f"augmentation.{field}", getattr(self, field), 0, 1)
        for field in ("brightness", "contrast", "saturation"):
            within(f"augmentation.{field}", getattr(self, field), 0, 10)
        within("augmentation.hue", self.hue, 0, 0.5)

    def __call__(
        self, image: Image, rng: np.random.Generator
    ) -> UInt8[np.ndarray, "s s 3"]:
        """Returns one augmented view of a decoded photo."""
        return self._view(image, random_crop(image.shape[:2], self.min_area, rng), rng)

    def view(
        self, encoded: bytes, name: str, rng: np.random.Generator
    ) -> UInt8[np.ndarray, "s s 3"]:
        """Decodes a photo and returns one augmented view of it.

        The same as decoding and calling, except that of a JPEG from which a crop
        of over four times the view's side was drawn only as many pixels are made as
        leave the crop twice that side.

        Args:
          encoded: the file's bytes.
          name: what errors call it.
          rng: decides the view.

        Raises:
          UserError: if the photo cannot be decoded.
        """
        header = read_header(encoded, name)
        if not header.is_jpeg:
            return self(decode_fast(encoded, name), rng)
        crop = random_crop(header.shape, self.min_area, rng)
        reduction = reduction_for(crop, self.size)
        image = decode_fast(encoded, name, reduction)
        return self._view(image, reduced(crop, reduction), rng)

    def _view(
        self, image: Image, crop: Crop, rng: np.random.Generator
    ) -> UInt8[np.ndarray, "s s 3"]:
        top, left, height, width = crop
        view = resize(image[top : top + height, left : left + width], self.size)
        if rng.random() < self.flip:
            view = np.asarray(cv2.flip(view, 1))
        if rng.random() < self.jitter:
            view = colour.vary(view, self.draw_changes(rng))
        return view

    def draw_changes(self, rng: np.random.Generator) -> list[tuple[str, float]]:
        """Draws colour changes, in random order; none where the range is zero."""
        changes = [
            (name, rng.uniform(max(0.0, 1 - spread), 1 + spread))
            for name, spread in (
                ("brightness", self.brightness),
                ("contrast", self.contrast),
                ("saturation", self.saturation),
            )
            if spread
        ]
        if self.hue:
            changes.append(("hue", rng.uniform(-self.hue, self.hue)))
        return [changes[i] for i in rng.permutation(len(changes))]


def random_crop(
    shape: tuple[int, ...], min_area: float, rng: np.random.Generator
) -> Crop:
    """Draws a crop: area uniform, aspect log-uniform; (top, left, height, width).

    After ten crops that do not fit, the largest central one of a permitted aspect.
    """
    height, width = shape
    for _ in range(ATTEMPTS):
        area = height * width * rng.uniform(min_area, 1.0)
        aspect = math.exp(rng.uniform(math.log(ASPECTS[0]), math.log(ASPECTS[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top = int(rng.integers(0, height - h + 1))
            left = int(rng.integers(0, width - w + 1))
            return top, left, h, w
    aspect = min(max(width / height, ASPECTS[0]), ASPECTS[1])
    w = min(width, max(1, round(height * aspect)))
    h = min(height, max(1, round(w / aspect)))
    return (height - h) // 2, (width - w) // 2, h, w


def reduction_for(crop: Crop, size: int) -> int:
    """Decides by how much a JPEG may be reduced as it is decoded: 1, 2, 4 or 8.

    What is left is at least twice what is wanted, so that the blur of resizing hides
    that a reduced block of a JPEG is sharper than an average of its pixels.
    """
    shorter = min(crop[2:])
    fitting = (k for k in REDUCTIONS if shorter >= SPARE * size * k)
    return next(fitting, 1)


def reduced(crop: Crop, reduction: int) -> Crop:
    """Returns the pixels of the reduced photo that a crop touches."""
    top, left, height, width = crop
    bottom, right = -(-(top + height) // reduction), -(-(left + width) // reduction)
    top, left = top // reduction, left // reduction
    return top, left, bottom - top, right - left


def centre_crop(image: Image, size: int) -> UInt8[np.ndarray, "s s 3"]:
    """The released validation view: shorter side to size * 8/7, then the centre.

    The centre is cut out before resizing, so that only what is kept is resized.
    """
    height, width = image.shape[:2]
    side = max(1, round(min(height, width) * 7 / 8))
    top, left = (height - side) // 2, (width - side) // 2
    return resize(image[top : top + side, left : left + side], size)
