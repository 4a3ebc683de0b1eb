"""Timings of the tiny trunk, as they would run where little is installed."""

import json
import subprocess
import sys

import numpy as np
import pytest

from tokret.benchmark import database_scan, extraction
from tokret.benchmark.cases import Settings, time_case
from tokret.benchmark.extraction import draw_photos, make_batches
from tokret.errors import UserError

# What a machine for timings may lack. absl and orbax come with flax.
MISSING = (
    *("tensorflow_datasets", "grain", "array_record", "ml_collections"),
    *("tensorboardX", "safetensors", "jaxtyping", "torch", "faiss", "cv2"),
    *("PIL", "tokret.data"),
)
BARE = f"""
import json, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if any(name == m or name.startswith(m + ".") for m in {MISSING}):
            raise ModuleNotFoundError("no module named " + name, name=name)

import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: (
    None if name.split(".")[0] in {MISSING} else found(name, package)
)
sys.meta_path.insert(0, Missing())
from tokret.benchmark import speed, inference, training_step
from tokret.benchmark.cases import Settings, time_case
"""


def test_photos_of_many_shapes_have_few_canvases():
    photos = draw_photos(16, 96)
    assert all(max(photo.shape) == 96 for photo in photos)
    assert len({photo.shape for photo in photos}) > 4
    batches = make_batches(photos, 4, 3)
    assert len({batch.images.shape for batch in batches}) <= 3
    assert sum(int((batch.sizes[:, 0] > 1).sum()) for batch in batches) == 16
    for batch in batches:
        for image, (height, width) in zip(batch.images, batch.sizes, strict=True):
            assert not np.asarray(image)[height:].any()
            assert not np.asarray(image)[:, width:].any()


@pytest.mark.slow
def test_extraction_is_timed_with_masks_and_without():
    settings = Settings(turns=1, matrix_side=16)
    case = extraction.make_case(settings, "tiny", "float32", 1, 48, 1)
    found = time_case(case, settings)
    assert found["canvases"] >= 1 and found["padding"] >= 0
    assert len(found["masks_cost"]) == 3 and found["images_per_second"][0] > 0


@pytest.mark.slow
def test_inference_and_training_run_on_a_bare_machine():
    program = BARE + (
        "settings = Settings(turns=1, matrix_side=16)\n"
        "step = training_step.make_case(settings, 'tiny', 'float32', 2, 32, 5)\n"
        "batch = inference.make_case(settings, 'tiny', 'bfloat16', 2, (32, 40))\n"
        "environment = speed.environment('jax')\n"
        "found = [time_case(case, settings) for case in (step, batch)]\n"
        "assert all(not case['rivals'] for case in found)\n"
        "print(json.dumps(found))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    step, batch = json.loads(done.stdout)
    assert step["side"] == [32, 32] and batch["side"] == [32, 40]
    assert step["products"] > batch["products"] > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("inference", "--minutes=none"), "--minutes: "),
        (("train", "--cases=no such case"), "no such case"),
    ],
)
def test_mistakes_are_a_line(program, refused, arguments, words):
    refused(program("benchmark", *arguments), words)


def test_a_database_is_searched_and_read():
    found = database_scan.run(1, rows=300, dims=8, block=128)
    assert found["bytes"] == 2 * 300 * 8 and found["ratio"][0] > 0
    wide = database_scan.run(1, rows=300, dims=8, store="float32")
    assert wide["bytes"] == 4 * 300 * 8 and wide["store"] == "float32"
    with pytest.raises(UserError, match="rows is 0"):
        database_scan.run(1, rows=0)
    blocks = database_scan.make_blocks(300, 8, 128)
    assert len(blocks) == 3
    assert blocks.start(2) == 300 - 128 and len(blocks.load(2)) == 128
