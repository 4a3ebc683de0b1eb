"""Parity with the golden outputs of the authors' model."""

import jax
import pytest


@pytest.fixture(autouse=True)
def float64():
    """Parity is a matter of formulas: checked where rounding plays no part."""
    with jax.enable_x64(True):
        yield
