"""A run's folder that is locked, removed, moved or emptied while it trains."""

import json
import shutil
import sys
import time

import pytest

from tokret.errors import UserError
from tokret.io.remote import leases, objects, urls
from tokret.training.workdir import Workdir, lock_workdir


def test_a_second_run_in_a_folder_is_refused(tmp_path):
    with lock_workdir(tmp_path):
        with pytest.raises(UserError, match="another run is training in"):
            with Workdir(tmp_path):
                pass
    with Workdir(tmp_path):  # the lock went with its run
        pass


@pytest.fixture
def workdir(tmp_path):
    """The folder of a run with two checkpoints."""
    folder = tmp_path / "run"
    for name in ("4", "8"):
        (folder / "checkpoints" / name).mkdir(parents=True)
    (folder / "config.json").touch()
    return folder


def test_a_folder_that_stays_is_checked_in_silence(workdir):
    with Workdir(workdir) as folder:
        folder.check()
        (workdir / "metrics.jsonl").touch()
        folder.check()
        shutil.rmtree(workdir / "checkpoints" / "4")


@pytest.mark.parametrize("replaced", [False, True])
def test_a_folder_that_is_removed_is_noticed(workdir, replaced):
    message = "run was removed or replaced while .* no checkpoint is in .*starts again"
    with pytest.raises(UserError, match=f"^workdir: .*{message}"):
        with Workdir(workdir) as folder:
            shutil.rmtree(workdir)
            if replaced:
                workdir.mkdir()
            folder.check()


@pytest.mark.skipif(sys.platform != "linux", reason="the system knows where it is")
def test_a_folder_that_is_moved_is_named(workdir, tmp_path):
    new = tmp_path / "new"
    message = f"moved to {new} while .* {new}/checkpoints has those of step 4, 8: name"
    with pytest.raises(UserError, match=message):
        with Workdir(workdir) as folder:
            workdir.rename(new)
            folder.check()


def test_a_folder_that_is_emptied_is_noticed(workdir):
    with pytest.raises(UserError, match="workdir: checkpoints, config.json in .* were"):
        with Workdir(workdir) as folder:
            folder.check()
            shutil.rmtree(workdir / "checkpoints")
            (workdir / "config.json").unlink()
            folder.check()


def test_at_the_end_it_is_checked_too_and_explains_other_errors(workdir, tmp_path):
    with pytest.raises(UserError, match="removed or replaced"):
        with Workdir(workdir):
            shutil.rmtree(workdir)
    with pytest.raises(UserError, match="removed or replaced"):
        with Workdir(workdir):
            shutil.rmtree(workdir)
            raise UserError("a checkpoint cannot be written")
    with pytest.raises(ValueError, match="a defect"):
        with Workdir(workdir):
            shutil.rmtree(workdir)
            raise ValueError("a defect")


def test_a_lock_that_is_removed_ends_the_run_and_not_the_one_that_took_it(workdir):
    message = r"\.lock was removed .* has those of step 4, 8$"
    with pytest.raises(UserError, match=f"^workdir: .*{message}"):
        with Workdir(workdir) as first:
            first.check()
            (workdir / ".lock").unlink()
            with Workdir(workdir) as second:
                second.check()
                first.check()


@pytest.fixture
def fast(monkeypatch):
    monkeypatch.setattr(leases, "RENEWED", 0.05)
    monkeypatch.setattr(leases, "EXPIRES", 1.0)
    monkeypatch.setattr(leases, "SETTLES", 0.0)


@pytest.fixture
def copy(memory, fast):
    """The local copy of a folder in object storage, which has nothing yet."""
    return urls.local_path(f"{memory.url}/run")


def test_a_lease_keeps_a_second_run_out_of_a_bucket(copy, monkeypatch):
    monkeypatch.setattr(leases, "EXPIRES", 600.0)  # it is renewed long before
    with lock_workdir(copy):
        with pytest.raises(UserError, match="another run is training in .* process"):
            with Workdir(copy):
                pass
    with Workdir(copy) as folder:
        folder.check()
    assert objects.list_objects("memory://bucket/run") == {}


def test_the_lease_of_a_killed_run_expires(copy, capsys):
    facts = {"owner": "x", "host": "other", "scope": "s", "pid": 1, "since": "then"}
    objects.write_object("memory://bucket/run/.lease", json.dumps(facts).encode())
    with Workdir(copy):
        pass
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("note: memory://bucket/run: waiting up to 1 s: process 1 on")


def test_a_run_whose_lease_is_gone_ends(copy):
    with pytest.raises(UserError, match=r"^workdir: .*\.lease was removed or taken"):
        with Workdir(copy) as folder:
            folder.check()
            objects.remove("memory://bucket/run/.lease")
            for _ in range(10_000):
                folder.check()
                time.sleep(0.02)


def test_processes_that_list_other_checkpoints_do_not_start(copy, monkeypatch):
    def gather(text):
        return [text, "of a host that listed them later"]

    monkeypatch.setattr("tokret.runtime.cluster.gather_texts", gather)
    with pytest.raises(UserError, match="checkpoints in .*/run changed while the proc"):
        with Workdir(copy):
            pass
    assert objects.list_objects("memory://bucket/run") == {}
