"""Work in threads: in order, and never far ahead of who takes the results."""

import threading
import time

import pytest

from tokret.data.synthetic_landmarks import photo_series as series
from tokret.data.synthetic_landmarks.photo_series import Series, in_order, take_series


def test_results_come_in_the_order_of_the_tasks():
    def slower_at_first(task: int) -> int:
        time.sleep(0.02 if task % 4 == 0 else 0)
        return task * task

    assert list(in_order(slower_at_first, range(20), 4)) == [i * i for i in range(20)]


def test_few_results_wait():
    started = []
    lock = threading.Lock()

    def work(task: int) -> int:
        with lock:
            started.append(task)
        return task

    results = in_order(work, range(1000), 2)
    for _ in range(3):
        next(results)
    time.sleep(0.05)
    assert len(started) <= 3 + 2 * 2
    results.close()  # type: ignore[attr-defined]


def test_a_failure_reaches_who_takes_the_results():
    def fail(task: int) -> int:
        raise ValueError(f"task {task}")

    with pytest.raises(ValueError, match="task 0"):
        list(in_order(fail, range(3), 2))


def test_more_photos_do_not_change_the_first_ones():
    few = take_series(Series(0, 1, series.DATABASE, 2, 48))
    more = take_series(Series(0, 1, series.DATABASE, 3, 48))
    assert few == more[:2]


@pytest.mark.parametrize("change", [{"seed": 1}, {"landmark": 2}, {"series": 2}])
def test_seed_landmark_and_series_each_change_a_photo(change):
    task = Series(0, 1, series.DATABASE, 1, 48)
    assert take_series(task) != take_series(task._replace(**change))
