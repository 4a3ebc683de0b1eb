import json
from pathlib import Path

import pytest

from benchmarks import marked_lines, pod_table
from benchmarks.pod_table import R101, key
from tokret.benchmark.plan import PlanRequest
from tokret.config import files
from tokret.errors import UserError
from tokret.runtime.chips import GIB

TRAFFIC = [
    {"kind": "all-gather", "group_size": 4, "number": 1, "bytes": 1e6, "largest": 1e6},
    {"kind": "all-reduce", "group_size": 16, "number": 9, "bytes": 5e6, "largest": 2e6},
    {"kind": "all-reduce", "group_size": 4, "number": 7, "bytes": 1e3, "largest": 5e2},
]
COST = {
    **{"arguments": GIB, "temporaries": 9 * GIB, "compute": 0.04, "memory": 0.25},
    **{"seconds": 0.25, "rate": 4000.0, "mfu": 0.2, "traffic": TRAFFIC},
}
MADE = {
    "commit": "0123456789abcdef",
    "versions": {"jax": "1", "libtpu": "2", "flax": "3"},
}


@pytest.fixture
def planned(monkeypatch):
    """Plans without a compiler; a batch of 2048 does not fit."""
    requests = []

    def run(config, request):
        requests.append((config, request))
        found = {**request._asdict(), "chips": 16, "photos": 360_000}
        if request.batch_size == 2048:
            smaller = {**COST, "fits": True, "batch_size": 1536}
            lack = {"fits": False, "needed": 19 * GIB, "available": 15 * GIB}
            return {**found, **lack, "largest": smaller}
        return {**found, "fits": True, **COST}

    rows = (
        PlanRequest("train", R101, "v5e:4x4", 4, 1024),
        PlanRequest("train", R101, "v5e:4x4", 4, 2048),
        PlanRequest("train", R101, "v5e:4x4", 4, 512),
        PlanRequest("extract", R101, "v5e:4x4", 1, 128),
        PlanRequest("search", R101, "v5e:4x4", 1, 64, store="bfloat16"),
        PlanRequest("search", R101, "v5e:4x4", 1, 2048, database=10**8),
    )
    monkeypatch.setattr(pod_table.plan, "run", run)
    monkeypatch.setattr(pod_table, "environment", lambda *packages: MADE)
    monkeypatch.setattr(files, "load_config", lambda name: name)
    monkeypatch.setattr(pod_table, "ROWS", rows)
    return requests


@pytest.fixture
def page(tmp_path):
    """A page with a guide above the table."""
    path = tmp_path / "pods.md"
    begin, end = marked_lines.marks(pod_table.MARK)
    path.write_text(f"# A guide\n{begin}\nold\n{end}\nthe end\n")
    return path


def test_the_table(planned, page):
    assert pod_table.run(page) == 6
    text = page.read_text()
    assert text.startswith("# A guide\n<!--") and text.endswith("-->\nthe end\n")
    assert "old" not in text
    largest = (
        "9 all-reduce among 16: 5 MB, the largest 2 MB; 1 all-gather among 4: 1 MB"
    )
    row = "| 4 x 4 | 1,024 | yes | 10.0 of 16 | 250 | memory | 4,000 | 20% | 0.025 |"
    assert f"| gldv2_r101 | v5e:4x4 {row} {largest} | 0123456 |" in text
    assert "| 2,048 | no | 19.0 of 16 |  |" in text and "| 1,536 | yes |" in text
    assert "| 16 x 1 | 128 | yes |" in text.partition("three scales")[2]
    cost = "yes | 10.0 of 16 | 250.0 | memory | 4,000 | 0123456 |"
    assert f"| v5e:4x4 | 1,000,000 | bfloat16 | {cost}" in text
    lack = "| float32 | no | 19.0 of 16 |  |  |  | 0123456 |"
    assert f"| v5e:4x4 | 100,000,000 {lack}" in text
    assert "Made with jax 1, libtpu 2, flax 3." in text
    assert [request.what for _, request in planned] == ["train"] * 3 + [
        *("extract", "search", "search")
    ]
    assert {config for config, _ in planned} == {R101}


def test_rows_that_are_done_are_not_compiled_again(planned, page, monkeypatch):
    monkeypatch.setattr(pod_table, "ROWS", pod_table.ROWS[:2])
    pod_table.run(page)
    first = page.read_text()
    # There is no text about programs without a row.
    assert "three scales" not in first and "database" not in first
    kept = page.parent / "measurements" / "pods.json"
    rows = json.loads(kept.read_text())["rows"]
    del rows[key(pod_table.ROWS[1])]
    kept.write_text(json.dumps({"rows": rows}))
    del planned[:]
    pod_table.run(page)
    assert [request.batch_size for _, request in planned] == [2048]
    assert page.read_text() == first


def test_other_files_are_refused(planned, page, tmp_path):
    (tmp_path / "other.md").write_text("# A guide\n")
    for name, reason in (("other.md", "needs the lines"), ("nowhere.md", "be read")):
        with pytest.raises(UserError, match=reason):
            pod_table.run(tmp_path / name)
    (tmp_path / "measurements").mkdir()
    rows = ("[]", '{"a": 5}', '{"a": null}', '{"a": {}}', '{"a": {"what": "train"}}')
    whole = [f'{{"rows": {each}}}' for each in rows]
    for text in ("{", "[]", '{"other": 1}', "[" * 100_000, *whole):
        (tmp_path / "measurements" / "pods.json").write_text(text)
        with pytest.raises(UserError, match="pods.json has no rows"):
            pod_table.run(page)
    assert not planned


def test_the_page_is_as_its_rows_make_it(request):
    docs = request.config.rootpath / "docs"
    rows = json.loads((docs / "measurements" / "pods.json").read_text())["rows"]
    rows = {key(row): rows[key(row)] for row in pod_table.ROWS if key(row) in rows}
    lines = pod_table.tables(rows, Path("docs/pods.md"))
    begin, end = marked_lines.marks(pod_table.MARK)
    whole = "\n".join([begin, *lines, end])
    assert whole in (docs / "pods.md").read_text()


def test_every_row_is_its_own():
    keys = [key(row) for row in pod_table.ROWS]
    assert len(set(keys)) == len(keys)
    assert any(
        row[:5] == ("train", R101, "v5e:16x16", 4, 8192) for row in pod_table.ROWS
    )
