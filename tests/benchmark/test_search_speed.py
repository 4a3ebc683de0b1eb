import json

import numpy as np
import pytest

from tokret.benchmark import search_speed, synthetic_descriptors
from tokret.benchmark.rivals import Rivals
from tokret.errors import UserError
from tokret.retrieval import metrics
from tokret.retrieval.compression import costs


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Queries, and a file of 6,322 labelled images and 300 distractors."""
    path = tmp_path_factory.mktemp("descriptors") / "d.npy"
    queries = synthetic_descriptors.make_queries(9, 24)
    synthetic_descriptors.write_descriptors(path, queries, 300)
    return queries, np.load(path, mmap_mode="r")


def test_synthetic_descriptors_are_of_length_1_and_neither_trivial_nor_hopeless(small):
    queries, database = small
    assert database.shape == (6622, 24) and database.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(database, axis=1), 1, atol=1e-5)
    truth = synthetic_descriptors.make_truth(9)
    levels = metrics.evaluate(queries, np.asarray(database), truth).means
    assert 0.9 > levels["easy"]["mAP"] > levels["hard"]["mAP"] > 0.01


def test_without_faiss_the_rest_is_measured(small, monkeypatch):
    def missing():
        raise UserError("no faiss")

    monkeypatch.setattr(search_speed, "import_faiss", missing)
    queries, database = small
    monkeypatch.setattr(costs, "ALONE", 2)
    result = search_speed.measure(
        *(queries, np.asarray(database), 1, ["int8", "pq8"], Rivals()),
    )
    assert result["missing"] == ["faiss"] and set(result["compressed"]) == {"int8"}
    assert all(set(each["seconds"]) == {"tokret"} for each in result["exact"].values())
    assert "not installed, skipped: faiss" in search_speed.report(result)


@pytest.mark.slow
def test_the_program_prints_a_table_and_writes_json(program, tmp_path):
    pytest.importorskip("faiss", reason="the extra faiss is not installed")
    path = tmp_path / "search.json"
    status, out, err = program(
        *("benchmark", "search", "--database=200", "--dim=16", "--queries=3"),
        *("--forms=bf16,int8,pq4", "--turns=1", f"--scratch={tmp_path}"),
        f"--json={path}",
    )
    assert status == 0, out + err
    result = json.loads(path.read_text())
    assert result["database"]["rows"] == 6522
    assert set(result["compressed"]) == {"bf16", "int8", "pq4"}
    assert result["compressed"]["pq4"]["image_bytes"] == 4
    assert max(map(len, out.splitlines())) <= 110
    assert [entry.name for entry in tmp_path.iterdir()] == ["search.json"]


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--database=0", "database is 0"),
        ("--queries=9999", "queries is 9999"),
        ("--forms=zip", "zip"),
        ("--forms=pq2000", "pq1024 is the largest"),
        ("--scratch=/nowhere", "--scratch: /nowhere is not a folder"),
        ("--database=900000000", "descriptors need more than"),
    ],
)
def test_mistakes_are_a_line(tokret, refused, flag, words):
    refused(tokret("benchmark", "search", flag), words)
