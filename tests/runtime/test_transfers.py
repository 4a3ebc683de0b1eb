"""Fetches from object storage that take a while are shown."""

import threading

from tests.runtime.terminal import on_terminal
from tokret.runtime import transfers

CODE = """
import time
from tokret.runtime import transfers
transfers.DELAY = {delay}
with transfers.transfer_bar("gs://bucket/run") as report:
    for done in (1, 2, 3):
        time.sleep(0.15)
        report(done * 2_000_000, 6_000_000)
"""


def test_a_fetch_that_takes_a_while_has_a_bar():
    text = on_terminal(CODE.format(delay=0.1))
    assert "fetching gs://bucket/run: " in text and "/6.00M" in text
    assert not on_terminal(CODE.format(delay=60.0))


def test_without_a_terminal_there_are_lines(capsys, monkeypatch):
    monkeypatch.setattr(transfers, "SECONDS", 0.0)
    with transfers.transfer_bar("gs://bucket/run") as report:
        report(3_000_000, 6_000_000)
    out, err = capsys.readouterr()
    assert (out, err) == ("", "fetching gs://bucket/run: 3 of 6 MB\n")


def test_fetches_of_other_threads_are_not_shown(capsys, monkeypatch):
    monkeypatch.setattr(transfers, "SECONDS", 0.0)

    def fetch():
        with transfers.transfer_bar("gs://bucket/run") as report:
            report(1, 2)

    thread = threading.Thread(target=fetch)
    thread.start()
    thread.join()
    assert capsys.readouterr() == ("", "")
