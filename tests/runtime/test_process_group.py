"""Threads instead of processes, and a dictionary instead of the coordinator."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tokret.config.tree import ExtractionConfig
from tokret.data.views import View
from tokret.retrieval.canvases import plan_canvases
from tokret.retrieval.extraction import Embedder, MemoryWriter, extract_into
from tokret.retrieval.view_batches import scan_photos
from tokret.runtime import process_group as module
from tokret.runtime.process_group import ALONE, ProcessGroup

COUNT = 3


class Coordinator:
    """The methods of JAX's client that a group calls."""

    def __init__(self):
        self.values = {}
        self.largest = 0
        self._changed = threading.Condition()
        self._barriers = {}

    def key_value_set_bytes(self, key, value):
        with self._changed:
            assert key not in self.values
            self.values[key] = value
            self.largest = max(self.largest, len(value))
            self._changed.notify_all()

    def blocking_key_value_get_bytes(self, key, timeout_in_ms):
        with self._changed:
            assert self._changed.wait_for(lambda: key in self.values, 20), key
            return self.values[key]

    def key_value_delete(self, key):
        del self.values[key]

    def wait_at_barrier(self, name, timeout_in_ms):
        with self._changed:
            barrier = self._barriers.setdefault(name, threading.Barrier(COUNT))
        barrier.wait(20)


@pytest.fixture
def everywhere():
    """Returns a function that calls another in every process of a group."""
    coordinator = Coordinator()

    def run(work):
        with ThreadPoolExecutor(COUNT) as pool:
            groups = [ProcessGroup(i, COUNT, coordinator) for i in range(COUNT)]
            return list(pool.map(work, groups))

    run.coordinator = coordinator  # type: ignore[attr-defined]
    return run


def test_the_first_gathers_from_all_and_broadcasts_to_all(everywhere):
    def work(group):
        mine = {"n": np.arange(group.index), "why": np.array(["é"] * group.index, str)}
        parts = group.gather(mine)
        total = np.array(sum(len(part["n"]) for part in parts))
        received = group.broadcast({"total": total if group.first else np.array(-1)})
        return [part["why"].tolist() for part in parts], int(received["total"])

    first, *others = everywhere(work)
    assert first == ([[], ["é"], ["é", "é"]], 3)
    assert others == [([], 3)] * 2
    assert not everywhere.coordinator.values


def test_nothing_is_too_large_or_too_often(everywhere, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 100)

    def work(group):
        found = [
            group.gather({"x": np.full(300, i + group.index)})
            for i in range(2 * module.AHEAD + 1)
        ]
        return [[int(part["x"].sum()) for part in parts] for parts in found]

    first = everywhere(work)[0]
    assert first == [[300 * (i + j) for j in range(COUNT)] for i in range(len(first))]
    assert everywhere.coordinator.largest == 101


@pytest.mark.parametrize("total", [0, 2, 3, 11])
def test_parts_are_all_of_the_work(total):
    parts = [ProcessGroup(i, COUNT).part_of(total) for i in range(COUNT)]
    assert [i for part in parts for i in part] == list(range(total))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_one_process_alone_needs_no_coordinator():
    mine = {"x": np.arange(2)}
    assert ALONE.gather(mine) == [mine]
    assert ALONE.broadcast(mine) is mine
    assert ALONE.part_of(5) == range(5)


def test_objects_are_refused(everywhere):
    with pytest.raises(ValueError, match="pickle|Object"):
        ProcessGroup(1, 2, everywhere.coordinator).gather({"x": np.array([{}])})


def test_each_reads_and_embeds_its_part(everywhere, jpeg):
    settings = ExtractionConfig(
        longest_side=32, scales=(1.0,), batch_size=2, canvases=2
    )
    whole = [jpeg(i, (32, 32 - 16 * (i % 2))) for i in range(15)]
    whole[4], whole[9] = b"no photo", whole[9][:-10]  # in no batch; in one
    boxes = [(0.0, 0.0, 30.0, 12.0), *[None] * 14]
    batches = [0] * COUNT
    views = [
        View(data, f"{i}.jpg", box, 32)
        for i, (data, box) in enumerate(zip(whole, boxes, strict=True))
    ]

    def embed(variables, images, sizes, rescaled):
        return np.asarray(images, np.float32).mean(axis=(1, 2))

    def work(group):
        done = []
        photos = scan_photos(views, done.append, group)
        rows = MemoryWriter(len(views))
        if group.first:
            rows.finished[:3] = True  # by an earlier run
        canvases = plan_canvases(photos.sizes, 2, 2)

        def noted(*arguments):
            batches[group.index] += 1
            return embed(*arguments)

        embedder = Embedder(noted, {}, settings)
        extract_into(rows, embedder, views, photos, canvases, group=group)
        return photos, rows, sum(done)

    alone, written, _ = work(ALONE)
    expected = -(-batches[0] // COUNT), batches[0] // COUNT
    batches[:] = [0] * COUNT
    found = everywhere(work)
    assert [photos for photos, *_ in found] == [alone] * COUNT
    assert [read for *_, read in found] == [5, 5, 5]
    assert (max(batches), min(batches)) == expected
    first, *others = (rows for _, rows, _ in found)
    np.testing.assert_array_equal(first.descriptors, written.descriptors)
    np.testing.assert_array_equal(first.finished, written.finished)
    assert first.bad == written.bad and set(first.bad) == {9}
    assert all(rows.descriptors is None for rows in others)
