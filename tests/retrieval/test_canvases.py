import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tokret.retrieval.canvases import plan_canvases


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
