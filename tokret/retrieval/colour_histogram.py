"""The colour histogram: a baseline without training.

A trained descriptor must beat it before its mAP means anything.
"""

import cv2
import numpy as np

from tokret.shapes import Float, UInt8

BINS = (8, 4, 4)  # hue, saturation, value
# OpenCV halves the hue of 8-bit images: 0 to 179.
RANGES = (0, 180, 0, 256, 0, 256)


def colour_histogram(image: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, " 128"]:
    """Computes how often each of 128 colours occurs in an image [H, W, 3] uint8, RGB.

    The square root (Hellinger's kernel; Arandjelovic and Zisserman, CVPR 2012, use it
    on SIFT) keeps one large uniform surface from outweighing everything else. Returns
    [128] float32 of length 1: hue changes slowest, then saturation, then value.
    """
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    counts = cv2.calcHist([hsv], [0, 1, 2], None, BINS, RANGES)
    root = np.sqrt(counts.ravel())
    return (root / np.linalg.norm(root)).astype(np.float32)
