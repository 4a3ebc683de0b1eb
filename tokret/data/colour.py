"""Colour changes with the meaning of Pillow's ImageEnhance and torchvision's hue.

Brightness, contrast and saturation are within one grey level of Pillow's for factors up
to 2; the first two are nearly always equal. Hue repeats Pillow's rounding of the colour
circle to 255 steps, without which it would be up to 6 levels away. It is within one
level for all but 0.2 % of all colours, 0.4 % of the pixels of real photos: those
exactly between two steps that Pillow's floats round down.

All four are operations on planes of bytes in OpenCV and NumPy: 0.1 ms for each of the
first three and 0.6 ms for hue at 512 x 512 on one core, where Pillow takes 0.6 to 1 ms
and 9 ms. They run on the host: inside a jitted function on the CPU, the four took 8 ms
an image. On an accelerator, where they were not measured, they could save the host at
most a fifth of a view's time.
"""

import threading
from collections.abc import Sequence

import cv2
import numpy as np

from tokret.shapes import Float, UInt8

Image = UInt8[np.ndarray, "h w 3"]
Change = tuple[str, float]  # a name and a factor; for "hue" a turn
Affine = Float[np.ndarray, "3 4"]  # on a pixel's (red, green, blue, 1)

GREY = np.array([19595, 38470, 7471]) / 65536  # Pillow's weights of a grey level
# Pillow truncates and OpenCV rounds; a little less than half keeps whole numbers,
# whichever way OpenCV rounds ties.
CUT = -0.498

STEPS = 255  # of Pillow's colour circle: red is 0 and 255, green 85, blue 170
FINE = 256  # parts of such a step
SEXTANT = 42.5  # steps from red to yellow, from yellow to green and so on


def brightness(factor: float) -> Affine:
    """Blends with black."""
    return _diagonal(factor, 0.0)


def contrast(factor: float, mean: np.ndarray) -> Affine:
    """Blends with a mean colour's grey level, rounded to a whole one."""
    return _diagonal(factor, (1 - factor) * np.floor(GREY @ mean + 0.5))


def saturation(factor: float) -> Affine:
    """Blends every pixel with its grey level."""
    blend = _diagonal(factor, 0.0)
    blend[:, :3] += (1 - factor) * GREY
    return blend


def _diagonal(factor: float, offset: float) -> Affine:
    change = np.zeros((3, 4))
    np.fill_diagonal(change, factor)
    change[:, 3] = offset + CUT
    return change


def apply(change: Affine, image: Image) -> Image:
    """Applies a linear change to every pixel, rounds and clips."""
    return np.asarray(cv2.transform(image, change), np.uint8)


def mean_colour(image: Image) -> Float[np.ndarray, " 3"]:
    """The mean over the image of each channel."""
    return np.array(cv2.mean(image)[:3])


def vary(image: Image, changes: Sequence[Change]) -> Image:
    """Applies changes one after the other.

    A linear change that keeps 0 to 255, which is one with a factor up to 1, is not
    applied at once but multiplied into the next one.

    Args:
      image: the image; may be overwritten.
      changes: of brightness, contrast, saturation and hue, in any order.
    """
    waiting: Affine | None = None
    for name, amount in changes:
        if name == "hue":
            if waiting is not None:
                image, waiting = apply(waiting, image), None
            image = adjust_hue(image, amount, out=image)
            continue
        if amount == 1:
            continue
        if name == "contrast":
            mean = mean_colour(image)
            if waiting is not None:
                mean = np.asarray(waiting[:, :3] @ mean + waiting[:, 3])
            change = contrast(amount, mean)
        else:
            change = {"brightness": brightness, "saturation": saturation}[name](amount)
        waiting = change if waiting is None else _after(waiting, change)
        if amount > 1:
            image, waiting = apply(waiting, image), None
    return image if waiting is None else apply(waiting, image)


def _after(first: Affine, then: Affine) -> Affine:
    both = then[:, :3] @ first
    both[:, 3] += then[:, 3]
    return np.asarray(both)


class _Planes(threading.local):
    """Buffers of one thread: allocating them would cost as much as the arithmetic."""

    shape: tuple[int, ...] = ()

    def take(self, shape: tuple[int, ...]) -> None:
        """Allocates the buffers for an image of this shape."""
        if shape == self.shape:
            return
        self.shape = shape
        self.channels = [np.empty(shape, np.uint8) for _ in range(3)]
        self.highest, self.lowest, self.chroma, self.hue = (
            np.empty(shape, np.uint8) for _ in range(4)
        )
        self.bytes = [np.empty(shape, np.uint8) for _ in range(3)]
        self.words = [np.empty(shape, np.int16) for _ in range(2)]
        self.green = np.full(shape, STEPS // 3, np.uint8)
        self.blue = np.full(shape, 2 * STEPS // 3, np.uint8)


_planes = _Planes()


def adjust_hue(image: Image, turn: float, out: Image | None = None) -> Image:
    """Turns the colour circle, as torchvision does with Pillow's HSV.

    Args:
      image: the image.
      turn: in full turns, -0.5 to 0.5.
      out: for the result; may be `image`.
    """
    p = _planes
    p.take(image.shape[:2])
    cv2.split(image, p.channels)
    middle = p.bytes[0]
    _sort(p, middle)
    _compute_hue(p, middle)
    # Bytes wrap at 256 though the circle has 255 steps; so they do in torchvision.
    np.add(p.hue, np.uint8(int(turn * STEPS) % 256), out=p.hue)
    _rebuild(p)
    return np.asarray(cv2.merge(p.channels, out), np.uint8)


def _sort(p: _Planes, middle: np.ndarray) -> None:
    """Computes each pixel's highest and lowest channel, and their difference.

    `middle` becomes the middle channel, less the lowest.
    """
    red, green, blue = p.channels
    np.maximum(red, green, out=p.highest)
    np.minimum(red, green, out=p.lowest)
    np.minimum(p.highest, blue, out=middle)
    np.maximum(p.lowest, middle, out=middle)
    np.maximum(p.highest, blue, out=p.highest)
    np.minimum(p.lowest, blue, out=p.lowest)
    np.subtract(p.highest, p.lowest, out=p.chroma)
    np.subtract(middle, p.lowest, out=middle)


def _compute_hue(p: _Planes, middle: np.ndarray) -> None:
    """Computes Pillow's hue: steps round the circle, truncated to a whole one."""
    red, green, blue = p.channels
    _, spare, falls = p.bytes
    # 255 where hue falls as the middle channel rises: every second sextant.
    cv2.compare(red, green, cv2.CMP_LT, falls)
    cv2.compare(green, blue, cv2.CMP_LT, spare)
    np.bitwise_xor(falls, spare, out=falls)
    cv2.compare(blue, red, cv2.CMP_GT, spare)
    np.bitwise_xor(falls, spare, out=falls)
    # The step of the highest channel: 85 for green and, all bits inverted, 170 for
    # blue; for red 0, or 255 where hue falls from there.
    cv2.compare(green, p.highest, cv2.CMP_EQ, p.hue)
    np.bitwise_xor(p.hue, np.uint8(0b10101010), out=p.hue)
    cv2.compare(red, p.highest, cv2.CMP_EQ, spare)
    cv2.copyTo(falls, spare, p.hue)
    # The distance from there, in fractions of a step; 0 / 0 is zero in OpenCV.
    away, chroma = p.words
    np.copyto(away, middle)
    np.copyto(chroma, p.chroma)
    cv2.divide(away, chroma, away, SEXTANT * FINE)
    # Whole steps are the upper byte where they are added; where they are subtracted,
    # all bits are inverted, which subtracts one more, unless nothing was truncated.
    cv2.split(away.view(np.uint8).reshape(*away.shape, 2), [spare, middle])
    np.equal(spare, np.uint8(0), out=spare.view(np.bool_))
    np.bitwise_and(spare, falls, out=spare)
    np.bitwise_xor(middle, falls, out=middle)
    np.add(middle, spare, out=middle)
    np.add(p.hue, middle, out=p.hue)


def _rebuild(p: _Planes) -> None:
    """Computes channels from hue: each is highest within a sextant of its colour."""
    red, green, blue = p.channels
    inverse = p.bytes[0]
    np.invert(p.hue, out=inverse)
    # Red is at both ends: twice the steps from the middle of the circle, less 85.
    cv2.absdiff(p.hue, inverse, red)
    cv2.subtract(red, p.green, red)
    for channel, own in ((green, p.green), (blue, p.blue)):
        cv2.absdiff(p.hue, own, channel)
        cv2.subtract(p.green, channel, channel)
    for channel, weight in ((red, 1), (green, 2), (blue, 2)):
        cv2.multiply(p.chroma, channel, channel, weight / (2 * SEXTANT))
        cv2.add(channel, p.lowest, channel)
        np.minimum(channel, p.highest, out=channel)
