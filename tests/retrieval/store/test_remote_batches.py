"""Stores in object storage: written in parts, resumed on another host, read."""

import threading
from concurrent.futures import ThreadPoolExecutor, wait

import fsspec
import numpy as np
import pytest

from tests.retrieval.store.test_writing import BAD, ORDER, make, record, rows_of
from tokret.errors import UserError
from tokret.io.remote import objects, urls
from tokret.retrieval.store import remote_batches, writing
from tokret.retrieval.store.reading import fetch_store, read_store
from tokret.retrieval.store.writing import write_store

URL = "memory://bucket/store"


@pytest.fixture
def other_host(other_host):
    """Goes to a host without local copies; returns the place of the store's."""

    def move():
        other_host()
        return urls.local_path(URL)

    return move


@pytest.fixture(autouse=True)
def empty(other_host, monkeypatch):
    monkeypatch.setattr("tokret.io.remote.leases.SETTLES", 0.0)
    files = fsspec.filesystem("memory")
    files.store.clear()
    other_host()
    yield
    files.store.clear()


def stored():
    return [name for name in objects.list_objects(URL) if name != ".lock"]


def check_complete(folder):
    store = read_store(fetch_store(folder))
    np.testing.assert_array_equal(store.descriptors, rows_of())
    assert store.bad == BAD and store.record == record()
    assert stored() == ["descriptors.npy", "store.json"]


def test_a_complete_store_is_read_elsewhere(other_host):
    make(urls.local_path(URL))
    check_complete(other_host())
    assert make(other_host()) == 0  # nothing is extracted again
    check_complete(other_host())


class UploadsAtOnce(ThreadPoolExecutor):
    """Each batch is a part, however long its upload takes."""

    def submit(self, call, /, *arguments, **named):
        future = super().submit(call, *arguments, **named)
        wait([future])
        return future


class KilledError(BaseException):
    """Ends a process: what it would upload at its end is not."""


@pytest.mark.parametrize("uploaded", [1, 3, 4])
def test_a_killed_writer_is_resumed_on_another_host(other_host, monkeypatch, uploaded):
    monkeypatch.setattr(remote_batches, "PERIOD", 0.0)
    monkeypatch.setattr(remote_batches, "ThreadPoolExecutor", UploadsAtOnce)
    real, count = objects.write_object, [0]

    def write(url, content, **options):
        if "/parts/" in url:
            count[0] += 1
            if count[0] > uploaded:
                raise KilledError
        real(url, content, **options)

    monkeypatch.setattr(remote_batches, "write_object", write)
    with pytest.raises(KilledError):
        make(urls.local_path(URL))
    monkeypatch.setattr(remote_batches, "write_object", real)
    assert sum("parts/" in name for name in stored()) == uploaded
    folder = other_host()
    (folder.parent / "store").mkdir(parents=True)
    (folder / "descriptors.npy").write_bytes(b"of an earlier run on this host")
    assert make(folder) == 6 - uploaded
    check_complete(other_host())


@pytest.mark.parametrize("last", ["descriptors.npy", "store.json", "parts", "none"])
def test_a_writer_killed_while_it_completes_the_store(other_host, monkeypatch, last):
    def kill(*_):
        raise KilledError

    real = writing.publish

    def publish(path):
        if path.name == last:
            kill()
        real(path)

    monkeypatch.setattr(writing, "publish", publish)
    if last == "parts":
        monkeypatch.setattr(remote_batches, "list_names", kill)
    elif last == "none":
        monkeypatch.setattr(writing, "withdraw", kill)
    with pytest.raises(KilledError):
        make(urls.local_path(URL))
    monkeypatch.undo()
    assert make(other_host()) == 0
    check_complete(other_host())


def test_an_interrupt_keeps_all_finished_batches(other_host):
    with (
        pytest.raises(KeyboardInterrupt),
        write_store(urls.local_path(URL), record()) as w,
    ):
        w.write(ORDER[:2], rows_of()[ORDER[:2]], {})
        w.write(ORDER[2:4], rows_of()[ORDER[2:4]], {})
        raise KeyboardInterrupt
    assert len(stored()) == 2  # one part, and what it is of
    with write_store(other_host(), record()) as writer:
        assert sorted(np.flatnonzero(writer.finished)) == sorted(ORDER[:4])


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content[:-1],
        lambda content: content[:10],
        lambda content: b"",
        lambda content: content.replace(b",", b";", 1),
        lambda content: content[:-4] + b"abcd",
    ],
)
def test_a_damaged_part_is_extracted_again(other_host, change):
    with write_store(urls.local_path(URL), record()) as writer:
        writer.write(ORDER[:2], rows_of()[ORDER[:2]], {})
    (part,) = (name for name in stored() if "parts/" in name)
    content = objects.read_object(f"{URL}/{part}", 10_000)
    objects.write_object(f"{URL}/{part}", change(content))
    assert make(other_host()) == 6
    check_complete(other_host())


def test_a_slow_storage_does_not_stop_the_extraction(other_host, monkeypatch):
    monkeypatch.setattr(remote_batches, "PERIOD", 0.0)
    finished, uploaded = threading.Event(), []

    def write(url, content):
        assert finished.wait(600.0)
        uploaded.append(content)
        objects.write_object(url, content)

    monkeypatch.setattr(remote_batches, "write_object", write)
    with write_store(urls.local_path(URL), record()) as writer:
        for rows in (ORDER[:2], ORDER[2:4], ORDER[4:6]):
            writer.write(rows, rows_of()[rows], {})
        finished.set()
    assert len(uploaded) == 2  # the first, and all that waited
    with write_store(other_host(), record()) as writer:
        assert writer.finished.sum() == 6


def test_nothing_is_mixed_in_a_bucket(other_host):
    make(urls.local_path(URL))
    with pytest.raises(UserError, match="weights: digest 00ff and 11aa"):
        with write_store(other_host(), record(weights="11aa")):
            pass
    check_complete(other_host())


def test_a_second_writer_is_refused(monkeypatch, other_host):
    monkeypatch.setattr("tokret.io.remote.leases.RENEWED", 0.02)
    with write_store(urls.local_path(URL), record()):
        with pytest.raises(UserError, match=r"another process is writing .* \(it is"):
            with write_store(other_host(), record()):
                pass


def test_a_failed_upload_ends_the_extraction(monkeypatch):
    def refuse(url, content):
        raise UserError("no permission")

    monkeypatch.setattr(remote_batches, "PERIOD", 0.0)
    monkeypatch.setattr(remote_batches, "write_object", refuse)
    with pytest.raises(UserError, match="no permission"):
        make(urls.local_path(URL))
