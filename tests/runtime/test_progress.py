import threading

import pytest

from tests.runtime.terminal import on_terminal
from tokret.runtime import progress
from tokret.runtime.progress import Progress


def test_without_a_terminal_there_are_lines_now_and_then(capsys, monkeypatch):
    times = iter((0.0, 5.0, 15.0, 31.0, 40.0, 61.0))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(times))
    with Progress("extracting", 100, done=10) as bar:
        for _ in range(5):
            bar.update(10)
    out, err = capsys.readouterr()
    assert not out
    # 20 photos in the 26 s since the first ones, and so on.
    assert err.splitlines() == [
        "extracting: 40 of 100 photos, 0.769 photos/s, 01:18 left",
        "extracting: 60 of 100 photos, 0.714 photos/s, 00:56 left",
    ]


def test_short_work_and_other_processes_print_nothing(capsys, monkeypatch):
    with Progress("reading", 3) as bar:
        bar.update(3)
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    with Progress("reading", 3, shown=False) as bar:
        bar.update(3)
    assert capsys.readouterr() == ("", "")


def test_work_that_is_done_shows_nothing():
    code = "from tokret.runtime.progress import Progress\n"
    code += "for n in (0, 3):\n    with Progress('reading', n, done=n) as bar:\n"
    code += "        bar.update(0)\n"
    assert not on_terminal(code)


def test_an_inner_bar_is_drawn_over_the_outer_one():
    code = "from tokret.runtime.progress import Progress\n"
    code += "with Progress('extracting', 3) as bar:\n"
    code += "    with Progress('reading', 3, leave=False) as inner:\n"
    code += "        inner.update(3)\n    bar.update(3)\n"
    text = on_terminal(code)
    assert "reading:" in text and "\x1b" not in text
    assert text.count("\n") == 1 and text.endswith("\n")


def test_the_first_part_may_be_empty(capsys, monkeypatch):
    times = iter((0.0, 10.0, 40.0))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(times))
    with Progress("extracting", 4) as bar:
        for count in (0, 1, 1):  # what compiles is in the second
            bar.update(count)
    assert "0.0333 photos/s" in capsys.readouterr().err


CODE = """
from tokret.runtime import progress
progress.SECONDS = 0.0
with progress.Progress("reading", 3) as bar:
    bar.update(1)
    bar.update(1)
"""


@pytest.mark.parametrize(
    ("rows", "shown"), [(40, "67%|"), (0, "reading: 2 of 3 photos, ")]
)
def test_a_terminal_has_a_bar_if_its_size_is_known(rows, shown):
    # tqdm prints blanks on a terminal of 0 x 0.
    text = on_terminal(CODE, rows)
    assert shown in text and ("|" in text) == bool(rows)


def test_a_plain_bar_is_hidden_where_the_size_is_unknown():
    code = "from tokret.runtime.progress import progress_bar\n"
    code += "for _ in progress_bar(range(3), unit='case'): pass"
    assert "3/3" in on_terminal(code) and not on_terminal(code, 0)


def test_only_slow_work_is_printed(monkeypatch, capsys):
    with progress.printed_if_slow("note: slow"):
        pass
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    printed = threading.Event()
    write = progress.tqdm.write

    def noted(*arguments, **options):
        write(*arguments, **options)
        printed.set()

    monkeypatch.setattr(progress.tqdm, "write", noted)
    with progress.printed_if_slow("note: slow"):
        assert printed.wait(60)
    assert capsys.readouterr() == ("", "note: slow\n")
