"""Datasets in a bucket: prepared into it, read from it within a bound, trained on."""

import itertools
import os
import random
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from tokret.data import datasets, remote_shards
from tokret.data.augmentation import Augmentation
from tokret.data.preparing import destinations, tfds_layout
from tokret.data.streams import names_of_step, training_batches, validation_batches
from tokret.errors import StoppedError, UserError
from tokret.io.remote import objects
from tokret.io.remote.retrying import StorageError
from tokret.io.remote.urls import local_path

AUGMENTATION = Augmentation(size=8)
FIELDS = {"name": "image_folder", "resize": 32, "validation_fraction": 0.3}


@pytest.fixture(scope="module")
def photos(tmp_path_factory, jpeg):
    """40 photos in four classes."""
    root = tmp_path_factory.mktemp("photos") / "classes"
    for label in range(4):
        (root / f"class {label}").mkdir(parents=True)
        for i in range(10):
            path = root / f"class {label}" / f"{i:02d}.jpg"
            path.write_bytes(jpeg(10 * label + i, (64, 48)))
    return root


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(tfds_layout, "PHOTOS_PER_SHARD", 4)


@pytest.fixture(scope="module")
def local(tmp_path_factory, photos):
    """The dataset on the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tfds_layout, "PHOTOS_PER_SHARD", 4)
        data_dir = tmp_path_factory.mktemp("local")
        return datasets.prepare(str(data_dir), root=str(photos), **FIELDS)


def prepare(url, photos, **options):
    return datasets.prepare(url, root=str(photos), workers=1, **FIELDS, **options)


def gib(nbytes):
    return nbytes / 2**30


def same(a, b):
    for x, y in itertools.zip_longest(a, b):
        assert x.keys() == y.keys()
        for name in x:
            np.testing.assert_array_equal(x[name], y[name])


def test_a_bucket_gets_the_same_files_and_nothing_is_left(storage, photos, local):
    url = f"{storage.url}/data"
    dataset = prepare(url, photos)
    found = objects.list_objects(url)
    folder = f"image_folder/{local.folder.parent.name}/{tfds_layout.VERSION}"
    expected = {f"{folder}/{p.name}": p for p in local.folder.iterdir()}
    assert found.keys() == expected.keys()
    for name, path in expected.items():
        # TFDS writes the folder, too.
        if path.name != "dataset_info.json" and path.name != "SHA256SUMS":
            assert objects.read_object(f"{url}/{name}", 2**24) == path.read_bytes()
    assert dataset.folder == local_path(url) / folder
    assert not [p for p in dataset.folder.iterdir() if ".array_record" in p.name]
    assert not list(local_path(url).rglob("*.partial/*"))
    for split in ("train", "validation"):
        ours, theirs = dataset.records(split), local.records(split)
        assert len(ours) == len(theirs)
        for row in (*range(len(ours)), 3, 0):
            assert ours[row] == theirs[row]
        with pytest.raises(IndexError):
            ours[len(ours)]
    assert prepare(url, photos).identity() == local.identity()


def test_a_killed_preparation_counts_for_nothing_and_resumes(
    memory, photos, monkeypatch
):
    url = f"{memory.url}/data"
    real, sent = destinations.upload, []

    def upload(path, target, *before):
        if len(sent) == 5:
            raise KeyboardInterrupt
        sent.append(path.name)
        real(path, target, *before)

    monkeypatch.setattr(destinations, "THREADS", 1)
    with monkeypatch.context() as patch:
        patch.setattr(destinations, "upload", upload)
        with pytest.raises(KeyboardInterrupt):
            prepare(url, photos)
    names = [name.rpartition("/")[2] for name in objects.list_objects(url)]
    assert "SHA256SUMS" not in names and len(names) == 5
    with pytest.raises(UserError, match="contains no prepared gldv2"):
        datasets.prepare(url, name="gldv2")
    shutil.rmtree(local_path(url))  # as on another host
    written = []
    monkeypatch.setattr(
        destinations, "upload", lambda p, *to: (written.append(p.name), real(p, *to))
    )
    dataset = prepare(url, photos)
    shards = [name for name in written if ".array_record" in name]
    assert len(shards) == 2 * (10 - 2)  # with their reports; two were finished
    assert len(dataset.records("train")) == 28
    left = objects.list_objects(url)
    assert not [name for name in left if ".partial" in name]


@pytest.mark.parametrize("first", [0, 7])
def test_an_upload_that_fails_ends_the_preparation(memory, photos, monkeypatch, first):
    real, count = destinations.upload, itertools.count()

    def upload(path, target, *before):
        if next(count) >= first:
            raise StorageError(f"{target}: no permission")
        real(path, target, *before)

    monkeypatch.setattr(destinations, "upload", upload)
    with pytest.raises(StorageError, match="no permission"):
        prepare(f"{memory.url}/data", photos)


def test_a_preparation_that_was_taken_over_uploads_no_more(memory, photos, monkeypatch):
    url, real = f"{memory.url}/data", destinations.upload

    def upload(path, target, *before):
        if len(tried) == 2:
            objects.write_object(lease(), b"{}")
        tried.append(target)
        real(path, target, *before)

    def lease():
        return f"{url}/" + next(n for n in objects.list_objects(url) if "lease" in n)

    tried: list[str] = []
    monkeypatch.setattr(destinations, "THREADS", 1)
    monkeypatch.setattr(destinations, "upload", upload)
    with pytest.raises(StoppedError, match="another process took its preparation over"):
        prepare(url, photos)
    assert [n for n in objects.list_objects(url) if ".array_record" in n]
    assert f"{url}/" not in tried[2] or objects.find_object(tried[2]) is None


def test_two_preparations_at_once_are_refused(memory, photos, monkeypatch):
    from tokret.io.remote import leases

    url = f"{memory.url}/data"
    monkeypatch.setattr(leases, "RENEWED", 0.02)
    monkeypatch.setattr(leases, "EXPIRES", 600.0)  # it is renewed long before
    monkeypatch.setattr(leases, "SETTLES", 0.0)
    dataset = prepare(url, photos)
    folder = f"memory://{str(dataset.folder).partition('/memory/')[2]}"
    objects.remove(f"{folder}/SHA256SUMS")
    with leases.leased(f"{folder}.partial/lease", ""):
        with pytest.raises(UserError, match="another process prepares memory://buc"):
            prepare(url, photos)


@pytest.mark.parametrize("threads", [1, 4])
def test_batches_are_those_of_the_disk(memory, photos, local, threads):
    dataset = prepare(f"{memory.url}/data", photos)
    options = {"batch_size": 8, "seed": 3, "threads": threads, "first_step": 2}
    streams = [
        training_batches(of.records("train"), AUGMENTATION, **options)
        for of in (dataset, local)
    ]
    same(*(itertools.islice(stream, 9) for stream in streams))
    for in_runs in (False, True):
        options = {"size": 8, "batch_size": 4, "in_runs": in_runs}
        same(*(validation_batches(d.records("validation"), **options)
               for d in (dataset, local)))  # fmt: skip


class Watch:
    """What is on the disk, at the most, and what was downloaded."""

    def __init__(self, dataset, monkeypatch):
        self.most, self.downloads = 0, []
        real = remote_shards.download

        def download(url, path):
            self.downloads.append(path.name)
            real(url, path)
            files = dataset.folder.glob("image_folder-*.array_record*")
            self.most = max(self.most, sum(f.stat().st_size for f in files))

        monkeypatch.setattr(remote_shards, "download", download)


def windows_of(dataset, shards=2):
    """Windows of at most so many shards, and a cache for three windows."""
    table = dataset.shards("train")
    return table, shards * max(table.nbytes)


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("threads", [1, 5])
def test_windows_within_the_bound_as_on_the_disk(
    memory, photos, local, monkeypatch, threads, processes
):
    table, window = windows_of(local)
    bound = 3 * window
    dataset = prepare(f"{memory.url}/data", photos, cache_gib=gib(bound))
    watch = Watch(dataset, monkeypatch)
    labels = []
    for index in range(processes):
        options = {"batch_size": 4, "seed": 1, "process": (index, processes)}
        streams = [
            training_batches(
                of.records("train"),
                AUGMENTATION,
                threads=count,
                prefetch=2,
                windows=(table, window),
                first_step=first,
                **options,
            )
            for of, count, first in ((dataset, threads, 3), (local, 3, 0))
        ]
        batches = list(itertools.islice(streams[1], 24))
        same(itertools.islice(streams[0], 21), batches[3:])
        labels.append([batch["labels"] for batch in batches])
    assert watch.most <= bound + max(table.nbytes)
    for step in (1, 9):  # from 1
        names = names_of_step(
            local.records("train"),
            **{"batch_size": 4, "seed": 1, "step": step},
            processes=processes,
            windows=(table, window),
        )
        together = np.concatenate([of[step - 1] for of in labels]).tolist()
        assert [int(name[len("class ")]) for name in names] == together


def test_names_of_photos_that_are_not_here_are_their_rows(memory, photos, local):
    dataset = prepare(f"{memory.url}/data", photos)
    options = {"batch_size": 4, "seed": 1, "step": 2}
    records = dataset.records("train")
    names = names_of_step(records, **options)
    assert all(name.startswith("record ") for name in names)
    assert names_of_step(local.records("train"), **options) == [
        records[int(name.removeprefix("record "))]["filename"].decode()
        for name in names
    ]


def spoil(url, name, times, monkeypatch):
    """Downloads of a shard arrive damaged so often."""
    real, left = remote_shards.download, [times]

    def download(source, path):
        real(source, path)
        if name in source and left[0]:
            left[0] -= 1
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 1
            path.write_bytes(content)

    monkeypatch.setattr(remote_shards, "download", download)


def test_a_damaged_download_is_fetched_again_once(memory, photos, local, monkeypatch):
    url = f"{memory.url}/data"
    dataset = prepare(url, photos)
    spoil(url, "train.array_record-00001", 1, monkeypatch)
    records, theirs = dataset.records("train"), local.records("train")
    assert all(records[row] == theirs[row] for row in range(len(theirs)))
    dataset = prepare(url, photos)
    for file in dataset.folder.glob("*.array_record*"):
        file.write_bytes(b"damaged on the disk")  # and so fetched again
    spoil(url, "train.array_record-00001", 2, monkeypatch)
    records = dataset.records("train").in_any_order()
    assert records[0] == theirs[0]
    with pytest.raises(UserError, match=r"memory://.*damaged .*its SHA-256 differs"):
        records[5]


def test_a_missing_or_shorter_shard_is_refused_when_opened(memory, photos):
    url = f"{memory.url}/data"
    dataset = prepare(url, photos)
    (name, *_) = [n for n in objects.list_objects(url) if "train.array" in n]
    content = objects.read_object(f"{url}/{name}", 2**24)
    objects.write_object(f"{url}/{name}", content[:-1])
    with pytest.raises(UserError, match="it has .* bytes, not"):
        prepare(url, photos)
    objects.remove(f"{url}/{name}")
    with pytest.raises(UserError, match="lacks image_folder-train"):
        prepare(url, photos)
    # One that goes while a run is training.
    with pytest.raises(UserError, match="there is no such object"):
        list(dataset.records("train"))


def test_digests_of_files_elsewhere_remove_nothing(memory, photos):
    dataset = prepare(f"{memory.url}/data", photos)
    other = dataset.folder.parent / "mine.array_record"
    other.write_bytes(b"x" * 10)
    sums = dataset.folder / "SHA256SUMS"
    line = f"# 10\n{'0' * 64}  ../{other.name}\n"
    sums.write_text(line + sums.read_text())
    again = datasets.Dataset(dataset.name, dataset.builder, cache_gib=1e-9)
    again.records("train")
    assert other.exists()


def test_a_shard_that_cannot_be_removed_stops_nothing(memory, photos, local):
    dataset = prepare(f"{memory.url}/data", photos, cache_gib=1e-9)
    records, theirs = dataset.records("train").in_any_order(), local.records("train")
    assert records[0] == theirs[0]
    path = dataset.folder / records.names[0]
    path.unlink()
    path.mkdir()
    last = len(theirs) - 1
    assert records[last] == theirs[last]


def test_windows_are_all_that_is_fetched(memory, photos, local, monkeypatch):
    table, window = windows_of(local)
    dataset = prepare(f"{memory.url}/data", photos, cache_gib=gib(3 * window))
    records = dataset.records("train")
    calls: list[str] = []
    for name in ("keep", "read_ahead"):  # the first calls the second
        real = getattr(records.files, name)

        def call(shards, name=name, real=real):
            calls.append(name)
            real(shards)

        monkeypatch.setattr(records.files, name, call)
    options = {"threads": 1, "prefetch": 1, "windows": (table, window)}
    next(training_batches(records, AUGMENTATION, batch_size=4, seed=1, **options))
    assert 0 < calls.count("read_ahead") <= calls.count("keep")


def test_records_in_order_are_fetched_ahead_and_dropped(
    memory, photos, local, monkeypatch
):
    table = local.shards("train")
    bound = 4 * max(table.nbytes)
    dataset = prepare(f"{memory.url}/data", photos, cache_gib=gib(bound))
    watch = Watch(dataset, monkeypatch)
    records, theirs = dataset.records("train"), local.records("train")
    for _ in range(2):
        assert all(records[row] == theirs[row] for row in range(len(theirs)))
    assert watch.most <= bound + max(table.nbytes)
    assert len(watch.downloads) <= 2 * len(table.lengths) + 2


PREPARE = """
import sys
from tokret.data import datasets
from tokret.data.preparing import tfds_layout
tfds_layout.PHOTOS_PER_SHARD = 4
fields = {"resize": 32, "validation_fraction": 0.3, "workers": 1}
datasets.prepare(sys.argv[1], name="image_folder", root=sys.argv[2], **fields)
"""


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_records(gcs, photos, local):
    url, rng = f"{gcs.url}/data", random.Random(0)
    environment = {**os.environ, **gcs.environment}
    command = [sys.executable, "-c", PREPARE, url, str(photos)]

    def start():
        return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)

    finished = [0]
    for delay in [0.0, *(rng.uniform(0, 0.3) for _ in range(5))]:
        process = start()
        deadline = time.monotonic() + 600
        while (
            len(objects.list_objects(url)) <= finished[-1] + 1
            and process.poll() is None
        ):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(delay)
        process.kill()
        process.wait()
        names = objects.list_objects(url)
        if any(name.endswith("SHA256SUMS") for name in names):
            break  # on a fast machine it was complete before the kill
        finished.append(len([name for name in names if "/journal/" in name]))
    assert finished == sorted(finished)
    assert start().wait(600) == 0
    dataset = prepare(url, photos)
    assert not [name for name in objects.list_objects(url) if ".partial" in name]
    for split in ("train", "validation"):
        ours, theirs = dataset.records(split), local.records(split)
        assert all(ours[row] == theirs[row] for row in range(len(theirs)))
