"""Queries of several requests are one batch, and one search."""

import threading
from concurrent.futures import wait

import numpy as np
import pytest

from tokret.search.filters import Filters
from tokret.search.searcher import Hit
from tokret.search.service.device import Device
from tokret.search.service.programs import canvases, split

PHOTO = np.zeros((2, 3, 3), np.uint8)


class Work:
    """What a device would do; it waits until `go` is set."""

    def __init__(self):
        self.go, self.started = threading.Event(), threading.Event()
        self.embedded, self.searched, self.sizes = [], [], []

    def embed(self, photos):
        self.started.set()
        assert self.go.wait(60)
        self.embedded.append(len(photos))
        if not all(photo.size for photo in photos):
            raise ValueError("a photo without pixels")
        return np.stack([np.full(2, p[0, 0, 0], np.float32) for p in photos]), [1]

    def search(self, queries, top, filters):
        self.started.set()
        assert self.go.wait(60)
        self.searched.append((len(queries), top, filters))
        return [[Hit(f"{query[0]:g}", 1.0)] * top for query in queries]


@pytest.fixture
def work():
    return Work()


@pytest.fixture
def device(work):
    device = Device(work.embed, work.search, 0.0, batched=work.sizes.append)
    yield device
    work.go.set()
    device.stop(60.0)


def test_what_waits_together_is_computed_together(device, work):
    first = device.embed(PHOTO)
    assert work.started.wait(60)
    photos = [device.embed(np.full_like(PHOTO, n)) for n in range(10)]
    some = Filters(("sea",))
    ones = [
        device.search(np.full(2, n, np.float32), n + 1, filters)
        for n, filters in enumerate((Filters(), some, Filters()))
    ]
    call = device.call(lambda: "called")
    assert device.waiting() == 13
    work.go.set()
    wait([first, call, *photos, *ones], 60)
    assert work.embedded == [1, 8, 2]
    assert work.searched == [(2, 3, Filters()), (1, 2, some)]
    assert [photo.result()[0] for photo in photos] == [*range(10)]
    assert [len(one.result()) for one in ones] == [1, 2, 3]
    assert [one.result()[0].name for one in ones] == ["0", "1", "2"]
    assert call.result() == "called" and device.waiting() == 0


def test_a_photo_waits_for_those_that_are_decoded(work):
    work.go.set()
    device = Device(work.embed, work.search, batch_wait=600.0)
    with device.decoding():
        photos = [device.embed(PHOTO)]
        assert not work.started.wait(0.05)
        photos.append(device.embed(PHOTO))
    wait(photos, 60)
    with device.decoding():  # a full batch does not wait
        wait([device.embed(PHOTO) for _ in range(8)], 60)
    assert work.embedded == [2, 8]
    device.stop(60.0)


def test_an_error_is_that_of_its_own_jobs(device, work):
    work.go.set()
    with pytest.raises(ValueError):
        device.embed(np.zeros((0, 0, 3), np.uint8)).result(60)
    with pytest.raises(ZeroDivisionError):
        device.call(lambda: 1 / 0).result(60)
    assert device.embed(PHOTO).result(60).shape == (2,)


def test_nobody_waits_for_a_device_that_has_ended(work):
    device = Device(work.embed, work.search, 0.0)
    running = device.embed(PHOTO)
    assert work.started.wait(60)
    waiting = device.embed(PHOTO)
    work.go.set()
    device.stop(60.0)
    assert running.done() and waiting.done()
    with pytest.raises(RuntimeError):
        device.embed(PHOTO)


def test_nothing_is_computed_for_a_request_that_was_given_up(device, work):
    first = device.embed(PHOTO)
    assert work.started.wait(60)
    assert device.embed(PHOTO).cancel()
    work.go.set()
    first.result(60)
    device.call(lambda: None).result(60)
    assert work.embedded == [1]


def test_canvases_and_batches():
    assert canvases(224) == [(192, 224), (224, 192), (224, 224)]
    assert canvases(1024) == [(768, 1024), (1024, 768), (1024, 1024)]
    assert canvases(40) == [(32, 64), (64, 32), (64, 64)]
    found = [[*split(count, (1, 4, 8))] for count in (1, 2, 3, 5, 6, 8, 11)]
    assert found == [[1], [1, 1], [4], [4, 1], [8], [8], [8, 4]]
    assert [*split(3, (1,))] == [1, 1, 1]


def test_photos_that_were_embedded_together_are_searched_for_together(work):
    device = Device(work.embed, work.search, batch_wait=600.0)
    photos = [device.embed(PHOTO)]
    assert work.started.wait(60)  # the first alone, the others after it
    photos += [device.embed(PHOTO) for _ in range(3)]
    work.go.set()
    wait(photos, 60)
    queries = [device.search(photo.result(), 1, Filters()) for photo in photos[:3]]
    wait(queries, 60)
    assert work.searched == [(3, 1, Filters())]
    device.stop(60.0)
