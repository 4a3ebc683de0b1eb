import numpy as np
import pytest


@pytest.fixture(scope="session")
def unit_vectors():
    """Returns a function: clustered descriptors [n, d] of length 1, one seed each."""

    def draw(n, d, seed=0, spread=0.7):
        rng = np.random.default_rng(seed)
        centres = np.random.default_rng(99).standard_normal((12, d))
        rows = centres[rng.integers(0, 12, n)] + spread * rng.standard_normal((n, d))
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    return draw
