import io

import numpy as np
import pytest
from PIL import Image

from tokret.data.ground_truth import from_revisited
from tokret.data.views import View
from tokret.evaluation.image_sets import DescriptorSet
from tokret.evaluation.leave_one_out_benchmark import LeaveOneOutBenchmark
from tokret.evaluation.revisited_benchmark import RevisitedBenchmark
from tokret.retrieval.answers import Costs
from tokret.retrieval.report.page import Summary
from tokret.retrieval.tables import TableRow

# What others may call their files, classes and datasets.
HOSTILE = (
    "</script><script>alert(1)</script><img src=//evil.example/x onerror=alert(2)>\"'"
)


def photo(seed, name, box=None, comment=b""):
    """A JPEG of 60 x 40 or, of odd seeds, 40 x 60 pixels of one colour."""
    rng = np.random.default_rng(seed)
    size = (60, 40) if seed % 2 == 0 else (40, 60)
    image = Image.new("RGB", size, tuple(rng.integers(0, 256, 3).tolist()))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", comment=comment)
    return View(buffer.getvalue(), name, box, 64)


def answers_of(benchmark, queries, database, costs):
    """What a report gets of a search without bad photos."""
    names = tuple(f"{i}.jpg" for i in range(len(database)))
    found = {
        "query": DescriptorSet(names[: len(queries)], queries, {}),
        "database": DescriptorSet(names, database, {}),
    }
    benchmark = benchmark.select(found, skip_bad=False)
    return benchmark.answers(benchmark.ranks(queries, database), costs)


@pytest.fixture(scope="session")
def landmarks():
    """Answers on a benchmark of 12 queries and 30 photos, names hostile."""
    rng = np.random.default_rng(0)
    q = rng.standard_normal((12, 8)).astype(np.float32)
    db = rng.standard_normal((30, 8)).astype(np.float32)
    lists = [rng.permutation(30)[:9].tolist() for _ in range(12)]
    gnd = [{"easy": x[:3], "hard": x[3:6], "junk": x[6:]} for x in lists]
    gnd[4] = {"easy": [], "hard": [], "junk": [1]}
    names = [f"im{i}" for i in range(30)]
    truth = {"imlist": names, "qimlist": [f"q{i}" for i in range(12)], "gnd": gnd}
    box = (10.0, 5.0, 30.0, 35.0)
    queries = [photo(i, f"q{i} {HOSTILE}", box) for i in range(12)]
    database = [photo(i, f"im{i} {HOSTILE}", None, b"SECRET") for i in range(30)]
    images = {"query": queries, "database": database}
    benchmark = RevisitedBenchmark(from_revisited(truth, "t"), images)
    return answers_of(benchmark, q, db, Costs(2.0, 42, 0.5, 8, 32))


@pytest.fixture(scope="session")
def labelled():
    """Answers of nine labelled photos, class names hostile."""
    rows = np.random.default_rng(1).standard_normal((9, 4)).astype(np.float32)
    labels = np.arange(9) % 3
    classes = [f"class {label} {HOSTILE}" for label in range(3)]
    images = {"database": [photo(i, f"photo {i}") for i in range(9)]}
    benchmark = LeaveOneOutBenchmark(labels.tolist(), classes, images, ())
    return answers_of(benchmark, rows, rows, Costs(0.0, 0, 0.5, 4, 16))


@pytest.fixture(scope="session")
def summary():
    """Returns a function from answers to their summary."""

    def make(answers):
        level = {"mAP": 0.5, "mP@1": 1.0, "mP@5": 0.25, "mP@10": float("nan")}
        numbers = dict.fromkeys(answers.protocols, level)
        if "all" in numbers:
            keys = ("mAP", "recall@1", "recall@5", "recall@10", "mAP@10")
            numbers = dict.fromkeys(keys, 0.5)
        rows = [TableRow(each, HOSTILE, numbers) for each in ("token", "histogram")]
        environment = {"commit": HOSTILE, "device": {"kind": "cpu"}, "scales": [2**0.5]}
        return Summary("token", rows, environment)

    return make


@pytest.fixture(scope="session")
def token_maps():
    """Four maps of 3 x 2 positions, the first of which has them all."""

    def maps(views):
        made = np.zeros((4, 3, 2), np.float32)
        made[0] = 1
        return [made for _ in views]

    return maps
