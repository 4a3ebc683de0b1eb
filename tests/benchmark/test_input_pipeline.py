import io
import json

import cv2
import numpy as np
import pytest
from PIL import Image

from tokret.benchmark import input_pipeline
from tokret.benchmark.input_pipeline import OURS, STEPS
from tokret.benchmark.noise_photos import noise_photo
from tokret.data.augmentation import Augmentation
from tokret.errors import UserError


def test_photos_of_noise_are_the_same_every_time_and_as_large_as_photos():
    photo = noise_photo(3)
    assert photo == noise_photo(3) != noise_photo(4)
    pixels = np.asarray(Image.open(io.BytesIO(photo)))
    assert pixels.shape == (768, 1024, 3)
    assert 1.5 < 8 * len(photo) / (768 * 1024) < 2.5


def test_photos_of_a_folder_are_taken_instead(photo_folder, tmp_path):
    assert len(input_pipeline.read_photos(photo_folder)) == input_pipeline.PHOTOS
    assert len(input_pipeline.read_photos(photo_folder / "ash")) == 6
    with pytest.raises(UserError, match="has no photo"):
        input_pipeline.read_photos(tmp_path)


def test_every_step_is_timed_and_threads_are_restored():
    photos = [noise_photo(seed, 60, 80) for seed in range(2)]
    samples = input_pipeline.make_samples(photos, Augmentation(size=32), 4)
    threads = cv2.getNumThreads()
    times = input_pipeline.time_steps(samples, 2)
    assert cv2.getNumThreads() == threads
    assert set(times) == {*(f"{s} by {OURS}" for s in STEPS), input_pipeline.AREA}
    assert all(len(t) == 2 and min(t) > 0 for t in times.values())


def test_the_report_of_tokret_alone():
    ours = {"decode": 3.0, "crop, resize": 1.0, "colours": 1.0, "whole": 5.5}
    times = {f"{name} by {OURS}": [t, 2 * t] for name, t in ours.items()}
    times[input_pipeline.AREA] = [2.0, 4.0]
    result = {
        "environment": {"cores": 2, "processor": "an abacus"},
        "photos": {"what": "noise", "count": 2, "width": 80, "height": 60}
        | {"kilobytes": 3},
        **{"size": 32, "views": 4, "turns": 2},
        **input_pipeline.summary(times, 40),
    }
    assert result["steps"]["decode"] == {OURS: (10, 40 / 6, 40 / 3)}
    assert result["beside_inter_area"] == pytest.approx([1.1] * 3)
    text = input_pipeline.report(result)
    assert "INTER_AREA: +10.0 % (+10.0 to +10.0)" in text
    assert "tokret's own resizing: +37.5 % (+37.5 to +37.5)" in text
    assert "one of 2 cores, an abacus" in text and "times as fast" not in text
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.slow
def test_the_program_prints_a_table_and_writes_json(program, photo_folder, tmp_path):
    path = tmp_path / "input.json"
    status, out, err = program(
        *("benchmark", "input", f"--photos={photo_folder}"),
        *("--turns=1", f"--json={path}"),
    )
    assert status == 0, out + err
    assert all(step in out for step in STEPS)
    result = json.loads(path.read_text())
    assert result["benchmark"] == "input" and result["turns"] == 1
    assert {"versions", "processor", "cores", "commit"} <= set(result["environment"])
    assert set(result["steps"]) == set(STEPS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "tokret benchmark needs one of"),
        (("guess",), "'guess' is not a command"),
        (("input", "--photos=nowhere"), "--photos=nowhere is not a folder"),
        (("input", "--turns=0"), "turns is 0"),
        (("input", "--turns=many"), "--turns: "),
        (("input", "--json=no/such/folder.json"), "--json: no/such/folder.json"),
        (("input", "--colour"), "--colour is not an option"),
    ],
)
def test_mistakes_are_a_line(program, refused, arguments, words):
    refused(program("benchmark", *arguments), words)
