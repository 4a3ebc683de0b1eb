"""The released augmentation: random resized crop, flip, colour jitter.

Distributions are torchvision's (RandomResizedCrop, RandomHorizontalFlip, ColorJitter
with probability 0.8); every draw comes from the generator that is passed in.
"""

import dataclasses
import math
from collections.abc import Callable

import cv2
import numpy as np

from tokret.configuration import within
from tokret.shapes import UInt8

Image = UInt8[np.ndarray, "h w 3"]
ASPECTS = (3 / 4, 4 / 3)
ATTEMPTS = 10


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
        """Returns one augmented view of a photo."""
        top, left, height, width = random_crop(image.shape[:2], self.min_area, rng)
        view = resize(image[top : top + height, left : left + width], self.size)
        if rng.random() < self.flip:
            view = np.ascontiguousarray(view[:, ::-1])
        if rng.random() < self.jitter:
            view = self._vary_colours(view, rng)
        return view

    def _vary_colours(self, view: Image, rng: np.random.Generator) -> Image:
        def factor(range_: float) -> float:
            return rng.uniform(max(0.0, 1 - range_), 1 + range_)

        changes: list[tuple[Callable[[Image, float], Image], float]] = [
            (adjust_brightness, factor(self.brightness)),
            (adjust_contrast, factor(self.contrast)),
            (adjust_saturation, factor(self.saturation)),
            (adjust_hue, rng.uniform(-self.hue, self.hue)),
        ]
        for i in rng.permutation(len(changes)):
            adjust, amount = changes[i]
            view = adjust(view, amount)
        return view


def random_crop(
    shape: tuple[int, ...], min_area: float, rng: np.random.Generator
) -> tuple[int, int, int, int]:
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


def resize(image: Image, size: int) -> UInt8[np.ndarray, "s s 3"]:
    """Resizes to a square, averaging over areas where it shrinks (antialiased)."""
    shrinks = image.shape[0] > size or image.shape[1] > size
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (size, size), interpolation=method))


def centre_crop(image: Image, size: int) -> UInt8[np.ndarray, "s s 3"]:
    """The released validation view: shorter side to size * 8/7, then the centre.

    The centre is cut out before resizing, so that only what is kept is resized.
    """
    height, width = image.shape[:2]
    side = max(1, round(min(height, width) * 7 / 8))
    top, left = (height - side) // 2, (width - side) // 2
    return resize(image[top : top + side, left : left + side], size)


def _through_table(image: Image, table: np.ndarray) -> Image:
    rounded = np.clip(np.rint(table), 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(image, rounded))


def adjust_brightness(image: Image, factor: float) -> Image:
    """Blends with black."""
    return _through_table(image, np.arange(256) * factor)


def adjust_contrast(image: Image, factor: float) -> Image:
    """Blends with the mean grey level."""
    grey = round(float(cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0]))
    return _through_table(image, grey + (np.arange(256) - grey) * factor)


def adjust_saturation(image: Image, factor: float) -> Image:
    """Blends every pixel with its grey level."""
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return np.asarray(cv2.addWeighted(image, factor, grey, 1 - factor, 0))


def adjust_hue(image: Image, turn: float) -> Image:
    """Turns the colour circle; 1 is a full turn."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)  # hue in 0..255
    hsv[..., 0] += np.uint8(round(turn * 255) % 256)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL))
