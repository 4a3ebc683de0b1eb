"""The rules of easy, hard and junk, by hand."""

import dataclasses

import pytest

from tokret.data.synthetic_landmarks.relevance import (
    Appearance,
    angle_between,
    judge,
    label_photos,
)

QUERY = Appearance(azimuth=10.0, visible=1.0, extent=0.9, adverse=False)
CLEAR = Appearance(azimuth=-20.0, visible=0.9, extent=0.7, adverse=False)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [(0, 0, 0), (10, -20, 30), (170, -170, 20), (350, 10, 20), (0, 180, 180)],
)
def test_turn_is_the_angle_between_two_viewpoints(a, b, expected):
    assert angle_between(float(a), float(b)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "easy"),
        ({"azimuth": 54.0}, "easy"),
        ({"azimuth": 56.0}, "hard"),
        ({"azimuth": 109.0}, "hard"),
        ({"azimuth": 111.0}, "junk"),
        ({"azimuth": 190.0}, "junk"),
        ({"visible": 0.74}, "hard"),
        ({"visible": 0.29}, "junk"),
        ({"extent": 0.44}, "hard"),
        ({"extent": 0.24}, "junk"),
        ({"adverse": True}, "hard"),
        ({"adverse": True, "visible": 0.2}, "junk"),
    ],
)
def test_judge(change, expected):
    assert judge(QUERY, dataclasses.replace(CLEAR, **change)) == expected


def test_label_puts_each_index_into_one_rising_list():
    night = dataclasses.replace(CLEAR, adverse=True)
    back = dataclasses.replace(CLEAR, azimuth=180.0)
    photos = [(9, CLEAR), (4, night), (7, back), (5, CLEAR)]
    assert label_photos(QUERY, photos) == {"easy": [5, 9], "hard": [4], "junk": [7]}
