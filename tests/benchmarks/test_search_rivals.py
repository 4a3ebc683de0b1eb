import numpy as np
import pytest

from benchmarks.search_rivals import FAISS, NUMPY, searches
from benchmarks.targets import with_targets
from tokret.benchmark import synthetic_descriptors
from tokret.benchmark.timing import OURS


def test_all_programs_return_the_same(tmp_path):
    pytest.importorskip("faiss", reason="the extra faiss is not installed")
    path = tmp_path / "d.npy"
    queries = synthetic_descriptors.make_queries(9, 24)
    synthetic_descriptors.write_descriptors(path, queries, 300)
    found = {
        name: np.asarray(search(queries))
        for name, search in searches(np.load(path), 10).items()
    }
    assert set(found) == {OURS, FAISS, NUMPY}
    for items in found.values():
        np.testing.assert_array_equal(items, found[OURS])


def test_targets_are_reached_or_missed():
    result = {
        "benchmark": "search",
        "environment": {},
        "exact": {
            "one": {"ratios": {"NumPy": [1.2, 1.0, 1.3], "faiss": [0.9, 0.8, 1.0]}}
        },
        "database": {"gigabytes": 4.0},
        "peak_gigabytes": 5.1,
        "compressed": {"pq128": {"all_bytes": 129_900_000, "one": [0.2, 0.3]}},
    }
    targets = with_targets(result)["targets"]
    met = [case["met"] for target in targets for case in target["cases"]]
    assert met == [True, False, False, True, False]
