"""Seconds and bytes of a step."""

import time

import numpy as np
import pytest

from tokret.retrieval.reranking import costs


def test_time_and_a_passing_peak_are_seen(monkeypatch):
    real, seen = costs._bytes_in_use, []

    def bytes_in_use():
        seen.append(real())
        return seen[-1]

    monkeypatch.setattr(costs, "_bytes_in_use", bytes_in_use)

    def work():
        held = np.ones(64 * 2**20, np.uint8)
        last = len(seen) + 3  # looked at while it is held
        while len(seen) < last:
            time.sleep(0.01)
        return int(held[0])

    result, cost = costs.measure_cost(work)
    assert result == 1
    assert cost.seconds >= 0.01
    assert cost.peak_bytes >= 48 * 2**20


def test_without_a_count_of_its_own_the_process_size_is_taken(monkeypatch):
    monkeypatch.setattr(costs, "allocated", lambda: None)
    held, peak = costs._bytes_in_use()
    assert held > 2**20 and peak == 0


def test_only_time_is_measured_where_memory_is_unknown(monkeypatch, tmp_path):
    monkeypatch.setattr(costs, "allocated", lambda: None)
    monkeypatch.setattr(costs, "_STATM", tmp_path / "none")
    result, cost = costs.measure_cost(lambda: "done")
    assert result == "done" and cost.peak_bytes is None


def test_a_device_that_keeps_its_own_peak_is_believed(monkeypatch):
    held = iter([(100, 500), *[(200, 900)] * 10**4])
    monkeypatch.setattr(costs, "_bytes_in_use", lambda: next(held))
    assert costs.measure_cost(lambda: 1)[1].peak_bytes == 800


def test_an_error_passes_through():
    with pytest.raises(ZeroDivisionError):
        costs.measure_cost(lambda: 1 / 0)
