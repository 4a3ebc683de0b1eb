from pathlib import Path

import cv2
import numpy as np
import pytest

from tokret.retrieval import colour_histogram as histogram
from tokret.retrieval import leave_one_out

UNSEEN = Path(__file__).parents[2].parent / "shared" / "grocery" / "unseen"


def test_one_colour_fills_one_bin():
    # Pure red: hue 0, saturation and value 255, the last bins of four.
    image = np.zeros((6, 4, 3), np.uint8)
    image[..., 0] = 255
    descriptor = histogram.colour_histogram(image)
    assert descriptor.shape == (128,) and descriptor.dtype == np.float32
    assert np.flatnonzero(descriptor).tolist() == [3 * 4 + 3]
    # Pure blue: hue 120 of 180, bin 5 of 8.
    blue = histogram.colour_histogram(image[..., ::-1].copy())
    assert np.flatnonzero(blue).tolist() == [5 * 16 + 15]


def test_bins_are_square_roots_of_fractions_wherever_the_pixels_are():
    image = np.zeros((10, 10, 3), np.uint8)
    image[:, :1] = 255  # a tenth white, the rest black
    descriptor = histogram.colour_histogram(image)
    np.testing.assert_allclose(descriptor[[0, 3]] ** 2, [0.9, 0.1], rtol=1e-6)
    np.testing.assert_array_equal(
        descriptor, histogram.colour_histogram(image[:, ::-1].copy())
    )


@pytest.mark.slow
def test_the_baseline_on_unseen_groceries():
    if not UNSEEN.is_dir():
        pytest.skip(f"{UNSEEN} is not here: the photos are not tokret's own")
    photos = sorted(UNSEEN.rglob("*.jpg"))
    descriptors = np.stack(
        [
            histogram.colour_histogram(
                cv2.cvtColor(cv2.imread(str(photo)), cv2.COLOR_BGR2RGB)
            )
            for photo in photos
        ]
    )
    labels = np.array([photo.parent.name for photo in photos])
    result = leave_one_out.leave_one_out(descriptors, labels)
    assert result["mAP"] == pytest.approx(0.485, abs=2e-3)
    assert result["recall@1"] == pytest.approx(0.949, abs=2e-3)
