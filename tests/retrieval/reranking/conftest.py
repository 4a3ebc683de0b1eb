import numpy as np
import pytest


@pytest.fixture
def units():
    """Returns a function that draws [n, d] rows of length 1 about a few centres."""

    def make(seed, n, d=8, centres=5):
        draw = np.random.default_rng(seed)
        middle = draw.normal(size=(centres, d))
        rows = middle[draw.integers(0, centres, n)] + 0.5 * draw.normal(size=(n, d))
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    return make
