import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest

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
    terminal, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", rows, 2 * rows, 0, 0))
    subprocess.run([sys.executable, "-c", CODE], stderr=end, check=True)
    os.close(end)
    text = b""
    with contextlib.suppress(OSError):  # at the end
        while piece := os.read(terminal, 1000):
            text += piece
    os.close(terminal)
    assert shown in text.decode() and ("|" in text.decode()) == bool(rows)
