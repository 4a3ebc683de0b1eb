"""An embedded engine survives kills whenever they come (edge_update.py)."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.search.engines.edge_update import CONTENTS, ROWS
from tokret.search.engines.edge import EdgeEngine
from tokret.search.engines.protocol import Stats

PROGRAM = Path(__file__).with_name("edge_update.py")
ROOT = Path(__file__).parents[3]


def update(folder, first, last, seconds=None):
    """Updates in a process that is killed so long after its start.

    Returns how long it took.
    """
    command = [sys.executable, PROGRAM, folder, str(first), str(last)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as run:
        assert run.stdout.readline().startswith("started ")
        start = time.monotonic()
        if seconds is not None:
            time.sleep(seconds)
            run.kill()
        ended = run.stdout.read() == "done\n"
    assert ended or seconds is not None
    return time.monotonic() - start


def check(folder, *ranges):
    """The engine answers with the points of one of some ranges, all of them."""
    engine = EdgeEngine(folder, CONTENTS)
    rng = np.random.default_rng(0)
    sizes = {last - first: (first, last) for first, last in ranges}
    points = engine.stats().points
    first, last = sizes[points]
    for query in ROWS[rng.integers(first, last, 5)] if points else ():
        (found,) = engine.search(query[None], 50)
        numbers = np.array([each.point for each in found])
        assert len(numbers) == 50
        assert ((first <= numbers) & (numbers < last)).all()
        scores = [each.score for each in found]
        np.testing.assert_allclose(scores, ROWS[numbers] @ query, atol=1e-5)
        assert scores[0] > 0.999
    engine.close()
    return first, last


@pytest.mark.slow
def test_killed_builds_and_updates_are_resumed(tmp_path):
    alone = update(tmp_path / "alone", 0, 12_000)
    folder, before = tmp_path / "killed", (0, 0)
    rng = np.random.default_rng(1)
    for wanted in ((0, 12_000), (1_000, 14_000)):
        for _ in range(4):
            update(folder, *wanted, rng.uniform(0, alone))
            check(folder, before, wanted)
        update(folder, *wanted)
        assert check(folder, wanted) == wanted
        before = wanted
    engine = EdgeEngine(folder, CONTENTS)
    assert engine.stats() == Stats(13_000, 13_000, "mine:1000 to 14000")
    names = {path.name for path in folder.iterdir()}
    assert names == {".lock", "engine.json", engine.generation}
