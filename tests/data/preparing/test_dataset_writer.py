"""The engine: the same bytes whatever happens, and nothing done twice."""

import contextlib
import fcntl
import hashlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.data.preparing.held import HELD
from tokret.config.datasets import ImageFolderConfig
from tokret.data.image_folder import builder
from tokret.data.preparing import (
    dataset_writer,
    destinations,
    shards,
    tfds_layout,
    workers,
)
from tokret.data.preparing.photo_files import PhotoLocation
from tokret.data.preparing.photo_processing import PhotoProcessing
from tokret.data.preparing.shards import SourcePhoto
from tokret.errors import UserError

ROOT = Path(__file__).resolve().parents[3]

# Small shards, so that there are many; as a program of its own.
PREPARE = """
import pathlib
import sys
from tokret.config.datasets import ImageFolderConfig
from tokret.data.image_folder import builder
from tokret.data.preparing import tfds_layout
tfds_layout.PHOTOS_PER_SHARD = 6
config = ImageFolderConfig(name="image_folder", root=sys.argv[2], resize=64)
if len(sys.argv) > 3:
    from tests.data.preparing import held
    from tokret.data.preparing import dataset_writer
    dataset_writer.write_shard = held.write_shard
builder.prepare(config, pathlib.Path(sys.argv[1]), workers=2)
"""


def run(data_dir, root, *held):
    """Starts a preparation with two workers; they write two shards if `held`."""
    return subprocess.Popen(
        [sys.executable, "-c", PREPARE, str(data_dir), str(root), *held],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def held(tmp_path, monkeypatch, folder):
    """A preparation of which both workers wait for ever, two shards being written."""
    waiting = tmp_path / "waiting"
    waiting.mkdir()
    monkeypatch.setenv(HELD, str(waiting))
    process = run(tmp_path / "d", folder, "held")
    wait_for(lambda: len(list(waiting.iterdir())) == 2)
    assert {int(path.name) for path in waiting.iterdir()} == {*children(process.pid)}
    return process


def sums(folder):
    """The sums of all files below a folder, by path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory, jpeg):
    """240 photos in four classes, that take a while to shrink."""
    root = tmp_path_factory.mktemp("photos") / "classes"
    data = [jpeg(i, (720, 540), "PNG", compress_level=1) for i in range(8)]
    for label in range(4):
        (root / f"class {label}").mkdir(parents=True)
        for i in range(60):
            path = root / f"class {label}" / f"{i:02d}.png"
            path.write_bytes(data[(label + i) % 8])
    return root


@pytest.fixture(scope="module")
def timed(tmp_path_factory, folder):
    """What comes of them when nothing happens, in one process; and the seconds."""
    data_dir = tmp_path_factory.mktemp("undisturbed")
    start = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tfds_layout, "PHOTOS_PER_SHARD", 6)
        config = ImageFolderConfig(name="image_folder", root=str(folder), resize=64)
        builder.prepare(config, data_dir, workers=1)
    return sums(data_dir), time.monotonic() - start


@pytest.fixture(scope="module")
def undisturbed(timed):
    return timed[0]


def being_written(data_dir, process):
    """Whether workers of a process write shards at this moment, or it has ended."""
    mine = {str(child) for child in children(process.pid)}
    written = any(p.name.split(".")[-2] in mine for p in data_dir.rglob("*.tmp"))
    return written or process.poll() is not None


@pytest.mark.slow
def test_killed_at_ten_moments_it_ends_with_the_same_bytes(folder, timed, tmp_path):
    undisturbed, seconds = timed
    rng = random.Random(0)
    finished = [0]
    for kill in range(10):
        process = run(tmp_path, folder)
        # Three times soon after its start, else while it writes, for a while that
        # leaves much to do after the tenth.
        if kill not in (0, 4, 8):
            wait_for(lambda: being_written(tmp_path, process))  # noqa: B023
        time.sleep(rng.uniform(0, 0.1 * seconds))
        mine = children(process.pid)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        wait_for(lambda: not any(map(alive, mine)))  # noqa: B023 (called here)
        if process.returncode == 0:  # a fast machine had completed it
            break
        finished.append(len(list(tmp_path.rglob("journal/*.json"))))
    assert finished == sorted(finished)
    kept = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("data/*-of-000??")}
    final = run(tmp_path, folder)
    _, err = final.communicate(timeout=600)
    assert final.returncode == 0, err
    assert sums(tmp_path) == undisturbed
    (folder,) = tmp_path.rglob(tfds_layout.VERSION)
    for path, changed in kept.items():  # what was done was not done again
        assert (folder / path.name).stat().st_mtime_ns == changed


def test_the_number_of_workers_changes_no_byte(folder, undisturbed, tmp_path):
    process = run(tmp_path, folder)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert "preparing image_folder: 240 photos into " in err
    assert len(err.splitlines()) == 2  # no bar where there is no terminal
    assert sums(tmp_path) == undisturbed
    assert len(undisturbed) == 40 + 5


def children(pid):
    """The processes that a process has started; none once it has ended."""
    with contextlib.suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [int(number) for number in children.split()]
    return []


def alive(pid):
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def wait_for(condition):
    deadline = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_their_parent(how, held):
    mine = children(held.pid)
    held.send_signal(how)
    held.communicate(timeout=600)
    wait_for(lambda: not any(map(alive, mine)))


def test_a_killed_worker_is_reported_and_the_rest_kept(
    folder, held, undisturbed, tmp_path
):
    os.kill(children(held.pid)[0], signal.SIGKILL)
    _, err = held.communicate(timeout=600)
    assert held.returncode == 1 and "ended unexpectedly (status -9" in err
    kept = [path.name for path in tmp_path.rglob("journal/*.json")]
    assert len(kept) == 2
    again = run(tmp_path / "d", folder)
    assert again.wait(600) == 0
    again.stderr.close()
    assert sums(tmp_path / "d") == undisturbed


def test_a_defect_in_a_worker_comes_with_its_traceback(tmp_path):
    task = shards.ShardTask(str(tmp_path / "s"), str(tmp_path / "j"), None, None, None)
    with pytest.raises(RuntimeError, match="in digest"):
        list(workers.run(shards.write_shard, [task] * 2, 2, print))


class TestOneProcess:
    """Twelve photos in three shards, in this process."""

    @pytest.fixture(autouse=True)
    def small(self, tmp_path, jpeg, monkeypatch):
        monkeypatch.setattr(tfds_layout, "PHOTOS_PER_SHARD", 4)
        self.root, self.data_dir = tmp_path / "photos", tmp_path / "d"
        (self.root / "a").mkdir(parents=True)
        for i in range(12):
            (self.root / "a" / f"{i:02d}.jpg").write_bytes(jpeg(i))

    def prepare(self, workers=1, **options):
        options = {"root": str(self.root), "validation_fraction": 0.0} | options
        config = ImageFolderConfig(name="image_folder", **options)
        return builder.prepare(config, self.data_dir, workers)

    def counted(self, monkeypatch):
        written = []
        real = shards.write_shard

        def count(task, progress):
            written.append(Path(task.path).name)
            return real(task, progress)

        monkeypatch.setattr(dataset_writer, "write_shard", count)
        return written

    def test_a_second_time_nothing_is_done(self, monkeypatch, capsys):
        written = self.counted(monkeypatch)
        builder = self.prepare()
        assert len(written) == 3 and capsys.readouterr().err
        before = sums(self.data_dir)
        assert self.prepare().data_path == builder.data_path
        assert len(written) == 3 and "preparing" not in capsys.readouterr().err
        assert sums(self.data_dir) == before

    def test_only_what_is_missing_or_odd_is_done_again(self, monkeypatch):
        written = self.counted(monkeypatch)
        with monkeypatch.context() as patch:
            patch.setattr(dataset_writer, "write_dataset_info", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                self.prepare()
        assert len(written) == 3
        (partial,) = self.data_dir.rglob("*.partial")
        first, second, third = sorted((partial / "data").iterdir())
        (partial / "data" / f"{first.name}.99999.tmp").write_bytes(b"of a kill")
        first.unlink()
        (partial / "journal" / f"{second.name}.json").write_text("{")
        journal = partial / "journal" / f"{third.name}.json"
        report = json.loads(journal.read_text())
        journal.write_text(json.dumps(report | {"digest": "of other photos"}))
        self.prepare()
        assert sorted(written[3:]) == [first.name, second.name, third.name]
        assert not list(self.data_dir.rglob("*.partial"))
        assert not list(self.data_dir.rglob("*.tmp"))

    def test_what_was_started_from_other_photos_is_not_resumed(self, monkeypatch):
        written = self.counted(monkeypatch)
        with monkeypatch.context() as patch:
            patch.setattr(dataset_writer, "write_dataset_info", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                self.prepare()
        os.utime(self.root / "a" / "03.jpg", (1, 1))
        self.prepare()
        assert len(written) == 6

    def test_a_kill_between_the_last_two_steps(self, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(destinations.shutil, "rmtree", lambda *_, **__: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                self.prepare()
        assert list(self.data_dir.rglob("*.partial"))
        self.prepare()
        assert not list(self.data_dir.rglob("*.partial"))

    @pytest.mark.parametrize("when", ["open", "write", "close", "journal"])
    def test_a_full_disk_is_one_line_and_what_is_done_is_kept(self, when, monkeypatch):
        monkeypatch.setattr(tfds_layout, "PHOTOS_PER_SHARD", 6)
        full = RuntimeError(
            "write() failed: No space left on device; writing x; at byte 1048576"
        )

        class Writer:
            def __init__(self, path, options):
                self.path, self.fails = path, "00001-of" in path
                if self.fails and when == "open":
                    raise full
                self.writer = shards_writer(path, options)

            def write(self, record):
                if self.fails and when == "write":
                    raise full
                self.writer.write(record)

            def close(self):
                self.writer.close()
                if self.fails and when == "close":
                    raise full

        shards_writer = shards.ArrayRecordWriter
        with monkeypatch.context() as patch:
            if when == "journal":
                patch.setattr(shards, "_sync", raise_full)
            else:
                patch.setattr(shards, "ArrayRecordWriter", Writer)
            with pytest.raises(UserError) as caught:
                self.prepare()
        words = str(caught.value)
        assert "cannot be written" in words and "(No space left on device)" in words
        assert not list(self.data_dir.rglob("*.tmp"))
        written = self.counted(monkeypatch)
        self.prepare()
        assert len(written) == (2 if when == "journal" else 1)

    def test_two_at_once_wait_for_each_other(self, capsys):
        (partial,) = [
            Path(self.prepare(resize=0).data_path).with_name(
                f"{tfds_layout.VERSION}.partial"
            )
        ]
        final = partial.with_name(tfds_layout.VERSION)
        final.rename(partial)
        with (partial / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            thread = threading.Thread(target=self.prepare)
            capsys.readouterr()
            thread.start()
            wait_for(lambda: "waiting for another" in capsys.readouterr().err)
            assert thread.is_alive()
        thread.join(600)
        assert not thread.is_alive() and final.exists()

    def test_no_photo_that_can_be_used_is_an_error_all_the_same(self):
        for path in (self.root / "a").iterdir():
            path.write_bytes(b"<html>")
        with pytest.raises(UserError, match="no photo can be used"):
            self.prepare(skip_bad=True)

    def test_a_shard_without_a_good_photo_is_empty(self):
        for i in range(4, 8):
            (self.root / "a" / f"{i:02d}.jpg").write_bytes(b"")
        builder = self.prepare(skip_bad=True)
        assert builder.info.splits["train"].shard_lengths == [4, 0, 4]
        source = builder.as_data_source("train")
        assert [record["filename"][-6:] for record in source] == [
            f"{i:02d}.jpg".encode() for i in (0, 1, 2, 3, 8, 9, 10, 11)
        ]

    def test_a_photo_that_goes_away_meanwhile_is_named(self, monkeypatch):
        monkeypatch.setattr(
            builder,
            "fingerprint",
            lambda *_: (self.root / "a" / "05.jpg").unlink() or "0" * 12,
        )
        with pytest.raises(
            UserError, match=r"1 of 12 photos are missing: .*05\.jpg \(m"
        ):
            self.prepare()


def raise_full(_):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    "photos", [1, 511, 512, 513, 5063, 131_072, 131_073, 4_132_914]
)
def test_shards_are_decided_by_the_number_of_photos(photos):
    ends = tfds_layout.shard_ends(photos)
    lengths = [last - first for first, last in itertools.pairwise(ends)]
    assert sum(lengths) == photos and len(lengths) <= 256
    assert max(lengths) - min(lengths) <= 1
    assert max(lengths) <= 512 or len(lengths) == 256


def test_different_tasks_have_different_digests():
    items = [SourcePhoto("a.jpg", PhotoLocation("/x", 0, 5), {"label": 1})]
    task = shards.ShardTask("p", "j", items, PhotoProcessing(), None)
    others = (
        task._replace(processing=PhotoProcessing(512)),
        task._replace(photos=[items[0]._replace(name="b.jpg")]),
        task._replace(photos=[items[0]._replace(location=PhotoLocation("/x", 0, 6))]),
        task._replace(photos=[items[0]._replace(fields={"label": 2})]),
        task._replace(photos=items * 2),
    )
    assert len({t.digest() for t in (task, *others)}) == 6
    assert task._replace(path="q", journal="k").digest() == task.digest()
