"""An index survives a kill at any step on the disk (kill_points.py)."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_after_a_kill_at_any_step_nothing_is_lost_or_doubled(tmp_path, long):
    program = Path(__file__).with_name("kill_points.py")
    stride = 1 if long else 25
    done = subprocess.run(
        [sys.executable, program, tmp_path, str(stride)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    counts = dict(part.split(":") for part in done.stdout.split())
    assert counts.keys() == {"new", "rebuild", "update"}
    assert sum(map(int, counts.values())) >= 40
