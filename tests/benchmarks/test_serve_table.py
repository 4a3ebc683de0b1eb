import json

import pytest

from benchmarks import marked_lines, serve_table
from tokret.errors import UserError

BEGIN, END = marked_lines.marks(serve_table.MARK)
SPREAD = [1.1, 1.0, 1.2]
RESULT = {
    "environment": {
        "processor": "an abacus",
        "cores": 2,
        "commit": "0123456789",
        "versions": {"jax": "1.2"},
    },
    "photos": 100_000,
    "dims": 1024,
    "clients": 16,
    "turns": 7,
    "one": {"seconds": {"over HTTP": SPREAD}, "ratio": SPREAD}
    | {"faster_than_a_process": 99.6},
    "at_once": {
        "per_second": {"one": SPREAD, "all": SPREAD},
        "ratio": [2.5, 2.4, 2.6],
        "p99": {"one": 0.1, "all": 0.4},
        "queries": 448,
        "lost": 0,
    },
    "many": 1_000_000,
    "served": {
        kind: {
            "start_seconds": 9.0 + size,
            "proportional_bytes": size * 1e9,
            "anonymous_bytes": size * 1e9,
        }
        for kind, size in (("float32", 4.5), ("int8", 1.5))
    },
    "adding": {"extraction": {"few": 60.0, "many": 61.0}},
}


def test_the_figures_are_between_the_marks(tmp_path):
    page, path = tmp_path / "page.md", tmp_path / "serve.json"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    path.write_text(json.dumps(RESULT))
    assert serve_table.run(page, path) == 11
    text = page.read_text()
    assert "old" not in text and text.endswith(f"{END}\nafter\n")
    for words in (
        "2 cores of an abacus, commit `0123456`, jax 1.2; ",
        "| at most 1.3 | 1.10 (1.00 to 1.20) |",
        "| at least 10 | 100 |",
        "| at least 2 | 2.50 (2.40 to 2.60); p99 0.40 s, 0 of 896 lost |",
        "| memory of 1,000,000 photos, int8, PSS (anonymous) | 1.02 + 1 GB | 1.50 (1.5",
        "| start with 1,000,000 photos | at most 10 s | 10.5 to 13.5 s |",
        "| as to 1,000 | 61.0 s; 60.0 s to 1,000 |",
    ):
        assert words in text


@pytest.mark.parametrize("change", [{"many": "x"}, {"one": {}}, None])
def test_another_file_is_refused(tmp_path, change):
    (page := tmp_path / "page.md").write_text(f"{BEGIN}\n{END}\n")
    path = tmp_path / "serve.json"
    path.write_text(json.dumps(change and RESULT | change))
    with pytest.raises(UserError, match=r"serve\.json is not a JSON of serve"):
        serve_table.run(page, path)
