import numpy as np
import pytest

from benchmarks.rivals import InstalledRivals
from tokret.benchmark import synthetic_descriptors
from tokret.benchmark.rivals import Rivals
from tokret.retrieval.exact_search.top_k import top_k


def test_all_searches_return_the_same(tmp_path):
    pytest.importorskip("faiss", reason="the extra faiss is not installed")
    path = tmp_path / "d.npy"
    queries = synthetic_descriptors.make_queries(9, 24)
    synthetic_descriptors.write_descriptors(path, queries, 300)
    database = np.load(path)
    found = InstalledRivals().searches(database, 10)
    assert set(found) == {"faiss", "NumPy"}
    for search in found.values():
        ours = top_k(queries, database, 10)[1]
        np.testing.assert_array_equal(np.asarray(search(queries)), ours)


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
    judged, report = InstalledRivals().judge(result, "first")
    met = [case["met"] for target in judged["targets"] for case in target["cases"]]
    assert met == [True, False, False, True, False]
    assert report.startswith("first\n\nmissed: ") and report.count("\n") == 10
    assert Rivals().judge(result, "first") == (result, "first")


def test_every_trunk_with_a_form_is_compared():
    pytest.importorskip("torch")
    from benchmarks.torch_forms import FORMS

    rivals, images = InstalledRivals(), np.zeros((1, 32, 32, 3), np.float32)
    assert rivals.packages == ("torch",) and not rivals.note
    for dtype, forms in FORMS.items():
        assert set(rivals.forms("inference", "tiny", dtype, images)) == set(forms)
    labels = np.zeros(1, np.int32)
    training = rivals.forms("training", "tiny", "float32", images, labels, 3, 1)
    assert set(training) == set(FORMS["float32"])
    assert not rivals.forms("inference", "efficientnet_lite0", "float32", images)
    photos = [np.zeros((32, 40, 3), np.uint8)]
    ((name, make),) = rivals.forms(
        "extraction", "tiny", "float32", photos, (1.0,)
    ).items()
    assert name == "one at a time, eager float32"
    make()()


def test_without_pytorch_tokret_is_timed_alone(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    rivals = InstalledRivals()
    assert "pip install" in rivals.note and not rivals.packages
    images = np.zeros((1, 32, 32, 3), np.float32)
    assert not rivals.forms("inference", "tiny", "float32", images)
    rivals.release()
