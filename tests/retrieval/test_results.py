import json
import os
import subprocess

import jax
import numpy as np
import pytest

from tokret.errors import UserError
from tokret.retrieval import results
from tokret.retrieval.results import Results, write_results

LEVEL = {"mAP": 0.8216, "mP@1": 1.0, "mP@5": 0.98, "mP@10": 0.9512}
LEVELS = {"easy": LEVEL, "medium": LEVEL, "hard": {**LEVEL, "mAP": float("nan")}}
LABELLED = {
    "mAP": 0.48508,
    **{"recall@1": 1.0, "recall@5": 1.0, "recall@10": 1.0},
    **{"mAP@1": 1.0, "mAP@5": 0.75, "mAP@10": 0.625},
}


def test_results_are_written_whole_and_leave_nothing_beside(tmp_path):
    path = tmp_path / "results.json"
    path.write_text("old")
    numbers = {"roxford5k": LEVELS, "g": LABELLED}
    write_results(path, Results(numbers, {"commit": "c"}))
    content = json.loads(path.read_text())
    assert content["benchmarks"]["g"] == LABELLED
    assert content["benchmarks"]["roxford5k"]["easy"] == LEVEL
    assert content["benchmarks"]["roxford5k"]["hard"]["mAP"] is None
    assert content["environment"] == {"commit": "c"}
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]


def test_a_write_that_fails_keeps_the_old_results(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    path.write_text("old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"results\.json: .*No space left"):
        write_results(path, Results({}, {}))
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]
    with pytest.raises(UserError, match="No such file"):
        write_results(tmp_path / "none" / "results.json", Results({}, {}))


def test_the_environment_has_what_a_number_depends_on():
    found = results.environment("bfloat16")
    assert found["precision"] == "bfloat16"
    assert found["versions"]["jax"] == jax.__version__
    assert found["versions"]["numpy"] == np.__version__
    assert found["device"]["count"] == jax.device_count()
    assert json.loads(json.dumps(found)) == found


def test_the_commit_of_a_checkout(tmp_path):
    def git(*arguments):
        who = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True)

    assert results.commit(tmp_path) == "unknown"
    git("init", "-q")
    assert results.commit(tmp_path) == "unknown"
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-q", "-m", "one")
    head = results.commit(tmp_path)
    assert len(head) == 40
    (tmp_path / "file").write_text("2")
    assert results.commit(tmp_path) == f"{head}-dirty"
    inside = tmp_path / "site-packages"
    inside.mkdir()
    assert results.commit(inside) == "unknown"


def test_other_benchmarks_of_the_same_environment_are_kept(tmp_path):
    path = tmp_path / "results.json"
    first = {"old": {"b": LABELLED}}
    write_results(path, Results({"a": LABELLED}, {"commit": "c"}, first), merge=True)
    second = {"old": {"d": LABELLED}}
    write_results(path, Results({"e": LEVELS}, {"commit": "c"}, second), merge=True)
    content = json.loads(path.read_text())
    assert set(content["benchmarks"]) == {"a", "e"}
    assert set(content["baselines"]["old"]) == {"b", "d"}
    write_results(path, Results({"f": LABELLED}, {"commit": "x"}), merge=True)
    assert set(json.loads(path.read_text())["benchmarks"]) == {"f"}
    path.write_text("[1]")
    write_results(path, Results({"g": LABELLED}, {"commit": "x"}), merge=True)
    assert set(json.loads(path.read_text())["benchmarks"]) == {"g"}
