"""What the fuzz test is to notice is noticed."""

import os
import time
import warnings

import pytest

from tests.fuzz import supervision, worker
from tests.fuzz.readers import Reader
from tests.fuzz.valid_files import written
from tokret.errors import UserError


def _leak(path):
    raise UserError(str(path)) from MemoryError()


def _attribute(path):
    try:
        exec("None.x", {"__name__": "tokret.x"})
    except AttributeError as error:
        raise UserError(str(path)) from error


def _nameless(path):
    raise UserError("it is damaged")


def _loop(path):
    end = time.process_time() + 5
    while time.process_time() < end:
        pass


def _warn(path):
    warnings.warn("odd", stacklevel=1)


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        (lambda path: path.read_bytes(), None),
        (lambda path: 1 / 0, "ZeroDivisionError"),
        (_warn, "UserWarning"),
        (_leak, "hidden MemoryError"),
        (_attribute, "hidden AttributeError"),
        (_nameless, "the error names no file"),
        (_loop, "more than 0.2 seconds"),
    ],
)
def test_an_attempt_ends_in_words(tmp_path, monkeypatch, read, expected):
    # The timer counts all threads of this process, which may still be busy.
    monkeypatch.setattr(worker, "SECONDS", 0.2 if read is _loop else 60)
    worker.signal.signal(worker.signal.SIGPROF, worker._stop)
    path = written("a.bin", b"content")(tmp_path)
    found = worker.attempt(Reader(lambda _: path, read), path)
    assert found is None if expected is None else found.startswith(expected)


def test_a_signal_that_comes_early_or_late_ends_nothing(tmp_path):
    worker.signal.signal(worker.signal.SIGPROF, worker._stop)
    path = written("a.bin", b"content")(tmp_path)

    def read(path):
        os.kill(os.getpid(), worker.signal.SIGPROF)

    assert worker.attempt(Reader(lambda _: path, read), path) is None
    read(path)


def test_a_crash_is_counted_and_the_others_are_tried(monkeypatch, tmp_path):
    calls = []

    def run(work, progress, add):
        (((name, first, last, skipped),)) = work["readers"]
        calls.append((first, [*skipped]))
        tally = {"reader": name, "accepted": 0, "unexpected": {}}
        if not skipped:
            add(tally | {"next": 3, "refused": 3})
            progress.write_text("4")
            return "ended by signal 11"
        add(tally | {"next": last, "refused": last - first})
        return ""

    monkeypatch.setattr(supervision, "_run_worker", run)
    found = supervision.fuzz({"x": 10}, seed=0)["x"]
    assert calls == [(0, []), (3, [4])]
    assert found.tried == 10 and found.unexpected == {"ended by signal 11": [4]}


def test_a_signal_ends_a_worker_in_words(monkeypatch, tmp_path):
    code = f"import os, time; os.kill({os.getpid()}, 0); os.abort()"
    monkeypatch.setattr(supervision, "COMMAND", ("-c", code))
    words = supervision._run_worker({}, tmp_path / "progress", lambda _: None)
    assert words.startswith("ended by signal 6")


def test_a_pipe_and_a_folder_are_tried(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    path = written("a.bin", b"content")(folder)
    # Names are enough for this reader, which opens nothing.
    reader = Reader(lambda _: path, lambda path: None)
    found = list(worker.try_no_files(reader, path, folder, {path: b"content"}))
    assert found == ["a folder: accepted", "a named pipe: accepted"]
    assert path.read_bytes() == b"content"
