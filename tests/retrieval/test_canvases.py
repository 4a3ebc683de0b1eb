import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tokret.retrieval.canvases import canvas_summary, padding_fraction, plan_canvases


@settings(derandomize=True, deadline=None, max_examples=40)
@given(
    st.lists(
        st.tuples(st.integers(1, 200), st.integers(1, 200)), min_size=1, max_size=30
    ),
    st.integers(1, 5),
)
def test_every_view_gets_one_canvas_that_holds_it(shapes, limit):
    sizes = np.array(shapes, np.int32)
    canvases = plan_canvases(sizes, limit)
    assert len(canvases) <= limit
    rows = sorted(row for canvas in canvases for row in canvas.rows)
    assert rows == list(range(len(sizes)))
    for canvas in canvases:
        assert canvas.height % 32 == canvas.width % 32 == 0
        for row in canvas.rows:
            height, width = sizes[row]
            assert height <= canvas.height and width <= canvas.width


def test_portrait_and_landscape_are_kept_apart_where_two_canvases_may_be():
    sizes = np.array([(96, 160)] * 5 + [(160, 96)] * 5 + [(96, 128)], np.int32)
    shapes = [(c.height, c.width) for c in plan_canvases(sizes, 2)]
    assert shapes == [(96, 160), (160, 96)]


def test_canvases_are_joined_where_full_batches_cost_less():
    sizes = np.array([(64, 64)] * 3 + [(64, 96)] * 2 + [(0, 0)], np.int32)
    apart = plan_canvases(sizes, 8)
    assert [canvas.rows for canvas in apart] == [(0, 1, 2), (3, 4)]
    # Two batches of 8 would have eleven empty places.
    (together,) = plan_canvases(sizes, 8, batch_size=8)
    assert (together.height, together.width) == (64, 96)
    assert together.rows == (0, 1, 2, 3, 4)  # and not the photo that is bad
    used, computed = 3 * 64 * 64 + 2 * 64 * 96, 8 * 64 * 96
    assert padding_fraction([together], sizes, 8) == 1 - used / computed
    words = list(canvas_summary([together], sizes, 8))
    assert words[0].startswith("5 photos, 1 program to compile, 50.0% padding")
    assert words[1] == "  canvas 64 x 96: 5 photos"
    assert [batch.rows for batch in together.batches(2)] == [(0, 1), (2, 3), (4,)]


def test_nothing_to_describe_needs_no_canvas():
    assert plan_canvases(np.zeros((2, 2), np.int32), 3) == []
    assert padding_fraction([], np.zeros((2, 2), np.int32), 8) == 0
