import json

import pytest

from tokret.benchmark import readme_table
from tokret.benchmark.readme_table import BEGIN, END
from tokret.errors import UserError


@pytest.fixture
def measured(tmp_path):
    rivals = {"eager": {"seconds": [1, 1, 1], "ratio": [1.234, 1.1, 1.4]}}
    cases = [
        {"name": "resnet50 float32 1x512x512", "rivals": rivals, "fastest": "eager"},
        {"name": "alone", "rivals": {}, "fastest": None},
    ]
    environment = {"device": "cpu", "processor": "an abacus", "cores": 2}
    one = {"benchmark": "inference", "environment": environment, "cases": cases}
    path = tmp_path / "all.json"
    path.write_text(json.dumps({"benchmark": "all", "results": {"inference": one}}))
    return path


def test_ratios_stand_between_the_marks_and_nothing_else_moves(measured, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    assert readme_table.run(readme, [measured])["rows"] == 1
    once = readme.read_text()
    row = (
        "| descriptors of resnet50 float32 1x512x512 | 2 cores of an abacus | "
        "PyTorch, eager | 1.23 (1.10 to 1.40) |"
    )
    assert row in once.splitlines() and "old" not in once and "alone" not in once
    assert once.startswith(f"before\n{BEGIN}\n") and once.endswith(f"{END}\nafter\n")
    readme_table.run(readme, [measured])
    assert readme.read_text() == once


def test_what_cannot_be_is_refused_and_the_readme_stays(measured, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("no marks\n")
    with pytest.raises(UserError, match="needs the lines"):
        readme_table.run(readme, [measured])
    assert readme.read_text() == "no marks\n"
    for text in ("{", "[]", "{}"):
        bad = tmp_path / "bad.json"
        bad.write_text(text)
        with pytest.raises(UserError, match=r"bad\.json"):
            readme_table.run(readme, [bad])
