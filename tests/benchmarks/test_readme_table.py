import json

import pytest

from benchmarks import marked_lines, readme_table
from tokret.errors import UserError

BEGIN, END = marked_lines.marks(readme_table.MARK)


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
    assert readme_table.run(readme, [measured]) == 1
    once = readme.read_text()
    row = (
        "| descriptors of resnet50 float32 1x512x512 | 2 cores of an abacus | "
        "PyTorch, eager | 1.23 (1.10 to 1.40) |"
    )
    assert row in once.splitlines() and "old" not in once and "alone" not in once
    assert once.startswith(f"before\n{BEGIN}\n") and once.endswith(f"{END}\nafter\n")
    readme_table.run(readme, [measured])
    assert readme.read_text() == once


def test_other_ends_of_lines_links_and_quoted_marks_stay(measured, tmp_path):
    readme, link = tmp_path / "README.md", tmp_path / "link.md"
    text = f"the lines `{BEGIN}` and `{END}`\r\n{BEGIN}\r\n{END}\r\nafter\r\n"
    readme.write_bytes(text.encode())
    link.symlink_to(readme)
    readme_table.run(link, [measured])
    found = readme.read_bytes().decode()
    assert link.is_symlink() and found.count("\n") == found.count("\r\n") == 7
    assert found.startswith(f"the lines `{BEGIN}` and `{END}`\r\n{BEGIN}\r\n| what")


@pytest.mark.parametrize(
    "text",
    [
        b"no marks\n",
        f"{END}\n{BEGIN}\n".encode(),
        2 * f"{BEGIN}\n{END}\n".encode(),
        f"{BEGIN}\nprose\n{BEGIN}\n{END}\n".encode(),
        f"{BEGIN}\n{END}\nprose\n{END}\n".encode(),
        f"{BEGIN}\n{END}\n\xff".encode("latin-1"),
    ],
)
def test_another_readme_is_refused_and_stays(text, measured, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_bytes(text)
    with pytest.raises(UserError, match=r"README\.md"):
        readme_table.run(readme, [measured])
    assert readme.read_bytes() == text


CASE = {"name": "n", "fastest": "f", "rivals": {"f": {"ratio": [1, 1, 1]}}}
WHERE = {"device": "cpu", "processor": "p", "cores": 2}
ONE = {"benchmark": "train", "environment": WHERE, "cases": [CASE]}
FASTER = ONE | {"cases": [CASE | {"rivals": {"f": {"ratio": [2, 2, 2]}}}]}


@pytest.mark.parametrize(
    "found",
    [
        *([], {}, {"benchmark": "all", "results": None}),
        {"benchmark": "all", "results": {"train": "x"}},
        {"benchmark": ["train"], "cases": [CASE]},
        {"benchmark": "scan", "ratio": [1, 1, 1]},
        {"benchmark": "all", "results": {"a": ONE, "b": ONE}},
        {"benchmark": "all", "results": {"a": ONE, "b": FASTER}},
        *(ONE | {"cases": cases} for cases in (None, "ab", ["x"], [{"fastest": "x"}])),
        ONE | {"environment": None},
        ONE | {"environment": {"device": "a\nb"}},
        *(
            ONE | {"cases": [CASE | {"rivals": {"f": {"ratio": ratio}}}]}
            for ratio in (
                *([1, 1], [1, 1, 1, 1], "123", 3, [1, 1, float("nan")], [1, 1, -1]),
                *([10**400, 1, 1], [True, True, True], [9, 1, 2], ["1", "1", "1"]),
            )
        ),
        *(
            ONE | {"cases": [CASE | {"name": name}]}
            for name in ("a|b", END, "a\nb", "\ud800", "", None, "[a](b)", "a" * 999)
        ),
    ],
)
def test_another_json_is_refused_and_the_readme_stays(found, tmp_path):
    readme, bad = tmp_path / "README.md", tmp_path / "bad.json"
    readme.write_text(f"{BEGIN}\nold\n{END}\n")
    bad.write_text(json.dumps(found))
    with pytest.raises(UserError, match=r"bad\.json"):
        readme_table.run(readme, [bad])
    assert readme.read_text() == f"{BEGIN}\nold\n{END}\n"
    assert len(list(tmp_path.iterdir())) == 2


def test_what_is_no_json_is_refused(tmp_path):
    for text in (b"{", b"\xff", b"[" * 100_000):
        (tmp_path / "bad.json").write_bytes(text)
        with pytest.raises(UserError, match=r"bad\.json"):
            readme_table.read_results(tmp_path / "bad.json")
