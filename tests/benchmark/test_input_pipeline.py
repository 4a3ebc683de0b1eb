import io
import json

import cv2
import numpy as np
import pytest
from PIL import Image

from tokret.benchmark import input as timing
from tokret.benchmark.input import OURS, PILLOW, STEPS
from tokret.benchmark.noise_photos import noise_photo
from tokret.data.augmentation import Augmentation
from tokret.errors import UserError

SMALL = Augmentation(size=32)


@pytest.fixture(scope="module")
def samples():
    photos = [noise_photo(seed, 60, 80) for seed in range(2)]
    return timing.make_samples(photos, SMALL, 4)


def test_photos_of_noise_are_the_same_every_time_and_as_large_as_photos():
    photo = noise_photo(3)
    assert photo == noise_photo(3) != noise_photo(4)
    pixels = np.asarray(Image.open(io.BytesIO(photo)))
    assert pixels.shape == (768, 1024, 3)
    assert 1.5 < 8 * len(photo) / (768 * 1024) < 2.5


def test_photos_of_a_folder_are_taken_instead(photo_folder, tmp_path):
    assert len(timing.read_photos(photo_folder)) == timing.PHOTOS
    assert len(timing.read_photos(photo_folder / "ash")) == 6
    with pytest.raises(UserError, match="holds no photo"):
        timing.read_photos(tmp_path)


def test_both_makers_make_the_same_views(samples):
    for sample in samples:
        for name, (ours, theirs) in STEPS.items():
            if name == "whole":
                continue
            difference = np.asarray(ours(sample), int) - np.asarray(theirs(sample))
            assert np.abs(difference).mean() < 1.5, name
    for seed, sample in enumerate(samples):
        rngs = {maker: np.random.default_rng(seed) for maker in (OURS, PILLOW)}
        sample.rngs.update(rngs)
        ours, theirs = (step(sample) for step in STEPS["whole"])
        assert np.abs(np.asarray(ours, int) - np.asarray(theirs)).mean() < 3


def test_every_step_is_timed_and_threads_are_given_back(samples):
    threads = cv2.getNumThreads()
    times = timing.measure(samples, 2)
    assert cv2.getNumThreads() == threads
    by_makers = {f"{s} by {m}" for s in STEPS for m in (OURS, PILLOW)}
    assert set(times) == {*by_makers, timing.AREA}
    assert all(len(t) == 2 and min(t) > 0 for t in times.values())


def invented(whole):
    """Two turns; decoding takes 3, resizing 1 and INTER_AREA 2; Pillow's takes 16."""
    ours = {"decode": 3.0, "crop, resize": 1.0, "colours": 1.0, "whole": whole}
    times = {f"{name} by {OURS}": [t, 2 * t] for name, t in ours.items()}
    times[timing.AREA] = [2.0, 4.0]
    return times | {f"{name} by {PILLOW}": [16.0, 32.0] for name in ours}


@pytest.mark.parametrize(
    ("whole", "met"), [(5.5, (True, True)), (10.0, (False, False))]
)
def test_targets_are_reached_or_missed(whole, met):
    found = timing.summary(invented(whole), 40)
    assert found["steps"]["decode"][OURS] == (10, 40 / 6, 40 / 3)
    assert found["steps"]["whole"]["ratio"] == pytest.approx([16 / whole] * 3)
    faster, parts = found["targets"].values()
    assert parts["reached"] == pytest.approx([whole / 5] * 3)
    assert found["beside_own_parts"] == pytest.approx([whole / 4] * 3)
    assert (faster["met"], parts["met"]) == met


def test_the_report_says_what_was_reached(samples):
    result = {
        "environment": {"cores": 2, "processor": "an abacus"},
        "photos": {"what": "noise", "count": 2, "width": 80, "height": 60}
        | {"kilobytes": 3},
        **{"size": 32, "views": 4, "turns": 2},
        **timing.summary(invented(5.5), 4),
    }
    text = timing.report(result)
    assert "target: at least 1.8 times Pillow: reached 2.91 (2.91 to 2.91)" in text
    assert "INTER_AREA: reached +10.0 % (+10.0 to +10.0)" in text
    assert "faster resizing: +37.5 % (+37.5 to +37.5)" in text
    assert "one of 2 cores, an abacus" in text
    assert max(map(len, text.splitlines())) <= 100
    missed = timing.report({**result, **timing.summary(invented(10.0), 4)})
    assert "missed: 1.60" in missed and "missed: +100.0 %" in missed


@pytest.mark.slow
def test_the_program_prints_a_table_and_writes_json(program, photo_folder, tmp_path):
    path = tmp_path / "input.json"
    status, out, err = program(
        *("tokret.benchmark", "input", f"--photos={photo_folder}"),
        *("--turns=1", f"--json={path}"),
    )
    assert status == 0, out + err
    assert all(step in out for step in STEPS) and out.count("target: ") == 2
    result = json.loads(path.read_text())
    assert result["benchmark"] == "input" and result["turns"] == 1
    assert {"versions", "processor", "cores", "commit"} <= set(result["environment"])
    assert len(result["targets"]) == 2 and set(result["steps"]) == set(STEPS)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "benchmark"),
        (("guess",), "guess"),
        (("input", "--photos=nowhere"), "nowhere is no folder"),
        (("input", "--turns=0"), "--turns=0"),
        (("input", "--turns=many"), "--turns=many"),
        (("input", "--json=no/such/folder.json"), "--json=no/such/folder.json"),
        (("input", "--colour"), "--colour"),
    ],
)
def test_mistakes_are_a_line(program, refused, arguments, says):
    refused(program("tokret.benchmark", *arguments), says)
