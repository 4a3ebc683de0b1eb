"""The order by windows: disjoint among processes, complete, local and repeatable."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tokret.data.window_order import Shards, WindowOrder


@st.composite
def cases(draw):
    lengths = draw(st.lists(st.integers(1, 20), min_size=1, max_size=9))
    processes = draw(st.integers(1, 4))
    local = draw(st.integers(1, max(1, sum(lengths) // processes // 2)))
    sizes = [draw(st.integers(1, 9)) for _ in lengths]
    return {
        "shards": Shards(tuple(lengths), tuple(sizes)),
        "batch_size": local * processes,
        "processes": processes,
        "seed": draw(st.integers(0, 2**32)),
        "window_bytes": draw(st.integers(1, 30)),
    }


def epoch_of(case, order, epoch):
    """The rows of each process in one epoch, [processes, run]."""
    count, batch = case["processes"], case["batch_size"]
    steps = sum(case["shards"].lengths) // batch
    places = range(epoch * steps * batch, (epoch + 1) * steps * batch)
    rows = np.array([order[place] for place in places])
    return rows.reshape(steps, count, -1).swapaxes(0, 1).reshape(count, -1)


@settings(max_examples=60, deadline=None)
@given(cases())
def test_an_epoch_has_every_record_at_most_once_and_processes_few_shards(case):
    total = sum(case["shards"].lengths)
    if total < case["batch_size"]:
        return
    order = WindowOrder(**case)
    for epoch in range(3):
        runs = epoch_of(case, order, epoch)
        assert len(np.unique(runs)) == runs.size
        assert total - case["batch_size"] < runs.size <= total
        assert runs.min() >= 0 and runs.max() < total
        shards = [{case["shards"].rows(row) for row in run} for run in runs.tolist()]
        # Only a shard at the end of a run is another's too.
        for a, b in itertools.combinations(shards, 2):
            assert len(a & b) <= 1
        assert sum(map(len, shards)) <= len(case["shards"].lengths) + len(shards) - 1


@settings(max_examples=60, deadline=None)
@given(cases(), st.integers(0, 200))
def test_the_order_follows_from_its_arguments_alone(case, place):
    if sum(case["shards"].lengths) < case["batch_size"]:
        return
    first, second = WindowOrder(**case), WindowOrder(**case)
    before = [first[i] for i in range(place)]
    assert second[place] == first[place]  # as a run that resumes there
    assert [second[i] for i in reversed(range(place))] == before[::-1]


@settings(max_examples=60, deadline=None)
@given(cases())
def test_windows_fit_and_follow_one_another(case):
    shards = case["shards"]
    if sum(shards.lengths) < case["batch_size"]:
        return
    order = WindowOrder(**case)
    window, offset = order.find(0)
    assert offset == 0
    for _ in range(12):
        nbytes = [shards.nbytes[shard] for shard in window.shards]
        assert sum(nbytes) <= case["window_bytes"] or len(nbytes) == 1
        of = {shards.rows(int(row)) for row in window.rows}
        assert len(of) == len(window.shards)
        following = order.after(window)
        assert (following.epoch, following.number) in (
            (window.epoch, window.number + 1),
            (window.epoch + 1, 0),
        )
        if following.epoch == window.epoch:
            assert following.first == window.first + len(window.rows)
        window = following


def test_epochs_and_seeds_differ_and_the_order_is_that_of_earlier_versions():
    case = {
        "shards": Shards((40, 40, 40), (1, 1, 1)),
        "batch_size": 8,
        "processes": 2,
        "window_bytes": 2,
    }
    order = WindowOrder(**case, seed=0)
    epochs = [epoch_of(case, order, epoch).tolist() for epoch in range(2)]
    assert epochs[0] != epochs[1]
    other = epoch_of(case, WindowOrder(**case, seed=1), 0).tolist()
    assert other != epochs[0]
    assert [order[i] for i in range(8)] == [113, 30, 111, 80, 13, 48, 43, 58]
