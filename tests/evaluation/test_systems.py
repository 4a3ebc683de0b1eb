"""A model's descriptors in stores: once, again, killed, of bad photos."""

import contextlib
import dataclasses
import functools
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from tokret.config.tree import ExtractionConfig
from tokret.data.views import View
from tokret.errors import UserError
from tokret.evaluation.systems import ModelSystem, histogram_system, settings_name
from tokret.models.heads.gem import GeMHead
from tokret.models.retrieval_net import RetrievalNet
from tokret.models.trunks.resnet import BasicBlock, ResNet
from tokret.retrieval.embedding import make_embed_fn
from tokret.retrieval.store.reading import read_store

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = ExtractionConfig(longest_side=48, scales=(1.0,), batch_size=2, canvases=2)
SHAPES = [(40, 30), (30, 40), (33, 20), (48, 48)]


def write_photos(folder, count):
    rng = np.random.default_rng(0)
    for i in range(count):
        pixels = rng.integers(0, 256, (*SHAPES[i % len(SHAPES)], 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:03d}.png")


def sets_of(folder):
    views = [
        View(path.read_bytes(), path.name, None, 48)
        for path in sorted(folder.iterdir())
    ]
    box = (2.0, 3.0, 20.0, 21.0)
    first = View(views[0].encoded, views[0].name, box, 48)
    return {"query": [first, views[1]], "database": views}


@functools.cache
def small_model(seed):
    trunk = ResNet(blocks=(1,), block=BasicBlock, width=4)
    model = RetrievalNet(trunk, GeMHead(dim=8))
    init = jax.jit(lambda x: model.init(jax.random.key(seed), x, train=False))
    return make_embed_fn(model, SETTINGS.scales), init(jnp.zeros((1, 32, 32, 3)))


def system_in(folder, seed=0, log=lambda line: None):
    extract, variables = small_model(seed)
    fields = {"trunk": "small", "dim": 8}
    return ModelSystem(
        *(extract, variables, SETTINGS, fields, folder, log),
        token_maps=lambda views: None,
    )


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    write_photos(folder, 60)
    return folder


@pytest.fixture(scope="module")
def undisturbed(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    lines = []
    found = system_in(folder, log=lines.append)(sets_of(photos))
    return folder, found, lines


def content(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def test_the_plan_is_logged_and_sets_are_stored_apart(undisturbed):
    folder, found, lines = undisturbed
    assert "0 of 62 exist" in lines[0]
    assert "62 photos, 2 programs to compile" in lines[1] and "% padding" in lines[1]
    assert [line.split(":")[0] for line in lines[2:]] == [
        "  canvas 64 x 32",
        "  canvas 64 x 64",
    ]
    assert found["query"].descriptors.shape == (2, 8)
    store = read_store(folder / "database")
    np.testing.assert_array_equal(store.descriptors, found["database"].descriptors)
    assert store.names == tuple(f"{i:03d}.png" for i in range(60))
    assert store.record.preprocessing["longest_side"] == 48
    # The second query is a photo of the database; the first is a part of one.
    same = np.abs(found["query"].descriptors - store.descriptors[:2]).max(axis=1)
    assert same[0] > 1e-3 and same[1] < 1e-5


def test_existing_descriptors_are_not_computed_again(undisturbed, photos):
    folder, found, _ = undisturbed

    def never(*_):
        raise AssertionError("computed again")

    lines = []
    system = system_in(folder, log=lines.append)
    again = dataclasses.replace(system, embed=never)(sets_of(photos))
    assert len(lines) == 1 and "62 of 62 exist" in lines[0]
    for name, first in found.items():
        np.testing.assert_array_equal(again[name].descriptors, first.descriptors)
    with pytest.raises(UserError, match="weights: digest"):
        system_in(folder, seed=1)(sets_of(photos))
    other = sets_of(photos)
    other["database"][5] = other["database"][6]
    with pytest.raises(UserError, match=r"names: '005\.png' and '006\.png'"):
        system_in(folder)(other)


def test_a_bad_photo_costs_its_own_row_and_is_named(undisturbed, photos, tmp_path):
    _, whole, _ = undisturbed
    sets = sets_of(photos)
    database = sets["database"]
    cut = database[3].encoded[: len(database[3].encoded) // 2]
    database[3] = View(cut, "cut.png", None, 48)
    database[7] = View(b"no photo", "text.png", None, 48)
    sets["query"][0] = View(database[0].encoded, "q.png", (5.0, 5.0, 5.2, 9.0), 48)
    found = system_in(tmp_path)(sets)
    bad = found["database"].bad
    assert sorted(bad) == [3, 7]
    assert bad[3].startswith("cut.png: cannot be decoded")
    assert bad[7].startswith("text.png: not a photo")
    assert "q.png is 30 x 40 pixels and its box" in found["query"].bad[0]
    descriptors = found["database"].descriptors
    assert np.isnan(descriptors[[3, 7]]).all()
    good = [row for row in range(60) if row not in bad]
    np.testing.assert_allclose(
        descriptors[good], whole["database"].descriptors[good], atol=1e-5
    )
    assert read_store(tmp_path / "database").bad == bad
    assert sorted(histogram_system(sets)["database"].bad) == [3, 7]
    with pytest.raises(UserError, match="no photo can be read"):
        system_in(tmp_path / "none")({"database": [database[7]]})


def test_folders_are_named_by_what_changes_descriptors():
    other = ExtractionConfig(
        longest_side=1024, scales=(1.0, 2**0.5), batch_size=1, canvases=1
    )
    assert settings_name(SETTINGS) == "48px-1"
    assert settings_name(other) == "1024px-1-1.4142"


CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_systems
photos, folder = Path(sys.argv[2]), Path(sys.argv[3])
system = test_systems.system_in(folder, log=lambda line: print(line, flush=True))
system(test_systems.sets_of(photos))
print("done", flush=True)
"""


def test_killed_at_any_moment_it_ends_the_same(photos, tmp_path, long):
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }

    def start(folder):
        here = Path(__file__).parent
        command = [sys.executable, "-c", CHILD, here, photos, folder]
        return subprocess.Popen(
            [str(word) for word in command],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )

    def finished(folder):
        lines = 0
        for journal in folder.glob("*/finished"):
            with contextlib.suppress(FileNotFoundError):
                lines += journal.read_bytes().count(b"\n")
        return lines

    # Of its own devices: among others a batch is split otherwise.
    process = start(tmp_path / "whole")
    assert process.communicate(timeout=600)[0].endswith("done\n")
    whole = content(tmp_path / "whole")
    clock = random.Random(0)
    kills = attempt = 0
    while kills < (10 if long else 2) and attempt < 20:  # a fast machine may need them
        folder, attempt = tmp_path / f"stores{attempt}", attempt + 1
        complete = False
        while not complete:
            process = start(folder)
            if kills < (10 if long else 2):
                # From before the first batch to the moment of completion.
                goal = finished(folder) + clock.randrange(14) if folder.exists() else 0
                while process.poll() is None and finished(folder) < goal:
                    time.sleep(0.001)
                if goal == 0:
                    process.stdout.readline()
                time.sleep(clock.random() * 0.02)
                process.send_signal(signal.SIGKILL)
            out, _ = process.communicate(timeout=600)
            complete = process.returncode == 0
            kills += process.returncode == -signal.SIGKILL
            assert complete == out.endswith("done\n")
        assert content(folder) == whole
