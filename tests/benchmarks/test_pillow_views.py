import numpy as np
import pytest

from benchmarks.pillow_views import MAKER
from benchmarks.rivals import InstalledRivals
from tokret.benchmark import input_pipeline
from tokret.benchmark.input_pipeline import OURS, STEPS
from tokret.benchmark.noise_photos import noise_photo
from tokret.data.augmentation import Augmentation


@pytest.fixture(scope="module")
def samples():
    photos = [noise_photo(seed, 60, 80) for seed in range(2)]
    return input_pipeline.make_samples(photos, Augmentation(size=32), 4, MAKER)


def test_both_libraries_make_the_same_views(samples):
    assert set(MAKER.steps) == set(STEPS)
    for sample in samples:
        for name in ("decode", "crop, resize", "colours"):
            theirs = np.asarray(MAKER.steps[name](sample))
            difference = np.asarray(STEPS[name](sample), int) - theirs
            assert np.abs(difference).mean() < 1.5, name
    for seed, sample in enumerate(samples):
        rngs = {maker: np.random.default_rng(seed) for maker in (OURS, MAKER.name)}
        sample.rngs.update(rngs)
        ours, theirs = STEPS["whole"](sample), MAKER.steps["whole"](sample)
        assert np.abs(np.asarray(ours, int) - np.asarray(theirs)).mean() < 3


def test_every_step_of_both_is_timed(samples):
    times = input_pipeline.time_steps(samples, 2, MAKER)
    makers = {f"{s} by {m}" for s in STEPS for m in (OURS, MAKER.name)}
    assert set(times) == {*makers, input_pipeline.AREA}
    assert all(len(t) == 2 and min(t) > 0 for t in times.values())


def drawn_up(whole):
    """Two turns; decoding takes 3, resizing 1 and INTER_AREA 2; Pillow's takes 16."""
    ours = {"decode": 3.0, "crop, resize": 1.0, "colours": 1.0, "whole": whole}
    times = {f"{name} by {OURS}": [t, 2 * t] for name, t in ours.items()}
    times[input_pipeline.AREA] = [2.0, 4.0]
    times |= {f"{name} by {MAKER.name}": [16.0, 32.0] for name in ours}
    summary = input_pipeline.summary(times, 40, MAKER.name)
    environment = {"cores": 2, "processor": "an abacus"}
    photos = {"what": "noise", "count": 2, "width": 80, "height": 60, "kilobytes": 3}
    size = {"size": 32, "views": 4, "turns": 2}
    facts = {"environment": environment, "photos": photos, **size}
    found = {"benchmark": "input", **facts, **summary}
    return InstalledRivals().judge(found, "")[0]


@pytest.mark.parametrize(("whole", "verdict"), [(5.5, "reached"), (10.0, "missed")])
def test_targets_are_reached_or_missed(whole, verdict):
    found = drawn_up(whole)
    assert found["steps"]["decode"][OURS] == (10, 40 / 6, 40 / 3)
    faster, parts = found["targets"]
    assert faster["cases"][0]["figures"] == pytest.approx([16 / whole] * 3)
    assert parts["cases"][0]["figures"] == pytest.approx([whole / 5] * 3)
    assert found["beside_own_parts"] == pytest.approx([whole / 4] * 3)
    assert {target["verdict"] for target in found["targets"]} == {verdict}


def test_the_report_compares_both():
    text = input_pipeline.report(drawn_up(5.5))
    assert "times as fast" in text and "2.91 (2.91 to 2.91)" in text
    assert max(map(len, text.splitlines())) <= 100
