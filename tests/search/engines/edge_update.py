"""Updates an embedded engine, to be killed.

    python tests/search/engines/edge_update.py FOLDER FIRST LAST

The engine in FOLDER gets the points FIRST to LAST. Two lines are printed: "started"
with the number of points that an earlier process has left, and "done".
"""

import sys
from pathlib import Path

import numpy as np

from tokret.search.engines.edge import EdgeEngine
from tokret.search.engines.points import Contents, PhotoFile
from tokret.search.engines.updating import Part, Source, update_engine

DIMS, PART = 128, 1000
CONTENTS = Contents("model", DIMS)
ROWS = np.random.default_rng(0).standard_normal((14_000, DIMS), np.float32)
ROWS /= np.linalg.norm(ROWS, axis=1, keepdims=True)


def part(numbers):
    files = [[PhotoFile(f"{n % 7}/{n}.jpg", str(n % 7), 1, 2)] for n in numbers]
    digests = [f"{number:016x}" for number in numbers]
    rows = range(numbers.start, numbers.stop)
    return Part(digests, files, rows, lambda: ROWS)


def source(first, last):
    starts = range(first, last, PART)
    return Source(
        lambda: [part(range(start, min(start + PART, last))) for start in starts],
        "model",
        f"mine:{first} to {last}",
        "mine",
    )


if __name__ == "__main__":
    engine = EdgeEngine(Path(sys.argv[1]), CONTENTS)
    left = engine.listing()
    sys.stdout.write(f"started {len(left.ids)}\n")
    sys.stdout.flush()
    update_engine(engine, source(int(sys.argv[2]), int(sys.argv[3])))
    sys.stdout.write("done\n")
