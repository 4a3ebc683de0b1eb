"""Compiling the same training step in a first and in a second process."""

import json
import subprocess
import sys
import tempfile
from typing import Any

import jax

from tokret.benchmark.timing import ratios, spread
from tokret.errors import UserError

TRUNK = {"cpu": "resnet50", "gpu": "resnet101", "tpu": "resnet101"}
_PROGRAM = """
import json, sys, time
from tokret.runtime.compilation_cache import keep_compiled
keep_compiled(sys.argv[1])
import jax, jax.numpy as jnp
from tokret.benchmark.training_step import make_step
programs = make_step(sys.argv[2], "float32", 1000)
images = jax.ShapeDtypeStruct((8, 128, 128, 3), jnp.uint8)
labels = jax.ShapeDtypeStruct((8,), jnp.int32)
lowered = programs.train.lower(programs.abstract, images, labels)
start = time.perf_counter()
lowered.compile()
print(json.dumps(time.perf_counter() - start))
"""


def compile_seconds(folder: str, trunk: str) -> float:
    """Compiles a training step in a process of its own, with a cache in `folder`."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, folder, trunk], capture_output=True, text=True
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        raise UserError(f"the compiling process failed: {' '.join(last)}")
    return float(json.loads(done.stdout.splitlines()[-1]))


def run(turns: int) -> dict[str, Any]:
    """Starts pairs of processes, each pair with an empty cache.

    Returns:
      The trunk, seconds of first and second starts, and the ratio: the second one's,
      the first one's being 1; each [median, lowest, highest].
    """
    trunk = TRUNK.get(jax.default_backend(), TRUNK["cpu"])
    first, second = [], []
    for _ in range(turns):
        with tempfile.TemporaryDirectory() as folder:
            first.append(compile_seconds(folder, trunk))
            second.append(compile_seconds(folder, trunk))
    return {
        "trunk": trunk,
        "first": spread(first),
        "second": spread(second),
        "ratio": spread(ratios(second, first)),
    }
