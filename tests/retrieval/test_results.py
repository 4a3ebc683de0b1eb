import json
import os
import subprocess

import jax
import numpy as np
import pytest

from tokret.errors import UserError
from tokret.retrieval import results
from tokret.retrieval.results import TableRow

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
    results.write_results(path, {"roxford5k": LEVELS, "g": LABELLED}, {"commit": "c"})
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
        results.write_results(path, {}, {})
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]
    with pytest.raises(UserError, match="No such file"):
        results.write_results(tmp_path / "none" / "results.json", {}, {})


def test_the_environment_says_what_a_number_depends_on():
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


def test_the_table():
    rows = [
        TableRow("R50-Token", "roxford5k", LEVELS),
        TableRow("colour histogram", "grocery", LABELLED),
        TableRow("R101-Token", "rparis6k", LEVELS),
    ]
    assert results.table(rows).splitlines() == [
        "                         ------- mAP -------    ------ mP@10 ------",
        "system      benchmark     Easy Medium   Hard     Easy Medium   Hard",
        "-------------------------------------------------------------------",
        "R50-Token   roxford5k    82.16  82.16      -    95.12  95.12  95.12",
        "R101-Token  rparis6k     82.16  82.16      -    95.12  95.12  95.12",
        "",
        "system            benchmark      mAP    R@1    R@5   R@10 mAP@10",
        "----------------------------------------------------------------",
        "colour histogram  grocery      48.51 100.00 100.00 100.00  62.50",
    ]


def test_long_names_are_cut_to_the_width_of_a_page():
    rows = [
        TableRow("s" * 200, "b" * 200, LEVELS),
        TableRow("s" * 200, "short", LABELLED),
    ]
    lines = results.table(rows).splitlines()
    assert max(len(line) for line in lines) == results.WIDTH
    assert lines[3].endswith("82.16  82.16      -    95.12  95.12  95.12")
    assert "ss~  " in lines[3] and "bb~  " in lines[3]


def test_other_benchmarks_of_the_same_environment_are_kept(tmp_path):
    path = tmp_path / "results.json"
    first = {"old": {"b": LABELLED}}
    results.write_results(path, {"a": LABELLED}, {"commit": "c"}, first, merge=True)
    second = {"old": {"d": LABELLED}}
    results.write_results(path, {"e": LEVELS}, {"commit": "c"}, second, merge=True)
    content = json.loads(path.read_text())
    assert set(content["benchmarks"]) == {"a", "e"}
    assert set(content["baselines"]["old"]) == {"b", "d"}
    results.write_results(path, {"f": LABELLED}, {"commit": "x"}, merge=True)
    assert set(json.loads(path.read_text())["benchmarks"]) == {"f"}
    path.write_text("[1]")
    results.write_results(path, {"g": LABELLED}, {"commit": "x"}, merge=True)
    assert set(json.loads(path.read_text())["benchmarks"]) == {"g"}
