import re

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


def test_a_terminal_has_a_bar(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    with Progress("reading", 3, unit="photo") as bar:
        bar.update(3)
    err = capsys.readouterr().err
    assert re.search(r"reading: 100%.*3/3 .*photo/s", err) and "of 3" not in err
