"""The words of tests/wording.py are not used, unless a reason is given there."""

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def wording():
    path = Path(__file__).with_name("wording.py")
    spec = importlib.util.spec_from_file_location("wording", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_avoided_word(wording):
    folders = ("tokret", "configs", "benchmarks", "tests", "docs")
    pages = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "train.py", "eval.py")
    paths = [wording.ROOT / name for name in (*folders, *pages)]
    found = {f: list(wording.occurrences(f)) for f in wording.files(paths)}
    assert len(found) > 300
    assert {f: words for f, words in found.items() if words} == {}
    assert not {f.stem.removeprefix("test_") for f in found} & wording.FILE_NAMES


@pytest.mark.parametrize(
    ("line", "word"),
    [("the run goes on", "goes on"), ("is_asked = 1", "asked"), ("anew", "anew")],
)
def test_an_avoided_word_is_found(wording, tmp_path, line, word):
    path = tmp_path / "some.py"
    path.write_text(f"x = 1\n# {line}\n")
    ((number, found, _),) = wording.occurrences(path)
    assert (number, found) == (2, word)
