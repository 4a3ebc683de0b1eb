"""An index survives a kill at any step on the disk (kill_points.py)."""

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_after_a_kill_at_any_step_nothing_is_lost_or_doubled(tmp_path, long, request):
    stride = 1 if long else 40
    done = subprocess.run(
        [sys.executable, "-m", "tests.search.kill_points", tmp_path, str(stride)],
        cwd=request.config.rootpath,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    counts = dict(part.split(":") for part in done.stdout.split())
    assert counts.keys() == {"new", "rebuild", "changes", "update"}
    assert sum(map(int, counts.values())) >= 30
