"""Golden outputs of the authors' model, and weights drawn as their recipe says."""

import importlib.util
import os
from pathlib import Path

import jax
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(os.environ.get("TOKRET_GOLDEN", ROOT.parent / "shared" / "golden"))


@pytest.fixture(autouse=True)
def float64():
    """Parity is a matter of formulas: checked where rounding plays no part."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def golden():
    """Returns a function from a file's name to its path in the golden folder."""
    if not (GOLDEN / "recipe.py").exists():
        pytest.skip(f"no golden cases in {GOLDEN}; set TOKRET_GOLDEN")
    return lambda name: GOLDEN / name


@pytest.fixture(scope="session")
def draw(golden):
    """Returns the recipe: (names and shapes, prefix) -> released state dict."""
    import json

    spec = importlib.util.spec_from_file_location("recipe", golden("recipe.py"))
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    seed = json.loads(golden("photos.json").read_text())["seed"]

    def tensors(names, prefix=""):
        return {
            prefix + name: np.asarray(recipe.draw(name, tuple(shape), seed))
            for name, shape in names
            if not name.endswith("num_batches_tracked")
        }

    return tensors
