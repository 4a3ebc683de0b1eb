"""Drafts of killed processes are removed, and no others."""

import os
import subprocess
import sys
import time

import pytest

from tokret.io import drafts
from tokret.io.atomic_files import require_writable, write_whole
from tokret.io.drafts import make_draft

KILLED = """
import os, sys
from pathlib import Path
from tokret.io.atomic_files import replacing
with replacing(Path(sys.argv[1])) as draft:
    draft.write_text("half")
    os.kill(os.getpid(), 9)
"""


@pytest.fixture
def killed(tmp_path):
    """A draft of a process that was killed while it wrote."""
    arguments = [sys.executable, "-c", KILLED, str(tmp_path / "file")]
    assert subprocess.run(arguments).returncode == -9
    (draft,) = tmp_path.iterdir()
    return draft


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_killed_writers_draft_is_removed_by_the_next(tmp_path, killed):
    write_whole(tmp_path / "other", "whole")
    assert killed.read_text() == "half"  # of another file
    write_whole(tmp_path / "file", "whole")
    assert names(tmp_path) == ["file", "other"]


def test_an_early_check_removes_it_too(tmp_path, killed):
    require_writable(tmp_path / "file", "output")
    assert names(tmp_path) == []


def test_a_folder_is_removed_with_its_content(tmp_path, killed):
    killed.unlink()
    (killed / "inner").mkdir(parents=True)
    make_draft(tmp_path / "file")
    assert names(tmp_path) == []


def test_drafts_in_use_stay(tmp_path):
    mine = make_draft(tmp_path / "file")
    running = mine.with_name(mine.name.rpartition("-")[0] + f"-{os.getppid()}")
    for draft in (mine, running):
        draft.touch()
    assert make_draft(tmp_path / "file") == mine
    assert names(tmp_path) == sorted([mine.name, running.name])


def test_drafts_of_another_host_stay_for_a_day(tmp_path, killed):
    theirs = killed.rename(tmp_path / ".file.00000000-1")
    make_draft(tmp_path / "file")
    assert theirs.exists()
    old = time.time() - drafts.STALE - 60
    os.utime(theirs, (old, old))
    make_draft(tmp_path / "file")
    assert not theirs.exists()


def test_other_users_and_other_names_stay(tmp_path, killed, monkeypatch):
    for name in (".file.swp", ".file.1", ".file.zz-1", "file.00000000-1"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    make_draft(tmp_path / "file")
    assert len(names(tmp_path)) == 5
