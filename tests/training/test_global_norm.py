import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tokret.training import updates
from tokret.training.updates import norm, norm_of_rows


def test_rows_give_the_norm_of_all(monkeypatch):
    rng = np.random.default_rng(0)
    shapes = [(), (3,), (4, 5), (2, 3, 4, 5), (1, 1), (40, 50)]
    tree = {str(s): jnp.asarray(rng.standard_normal(s), jnp.float32) for s in shapes}
    wanted = optax.tree.norm(tree)
    for long in (updates.LARGE, 100):  # none, and the last array alone
        monkeypatch.setattr(updates, "LARGE", long)
        np.testing.assert_allclose(norm_of_rows(tree), wanted, rtol=1e-6)
    np.testing.assert_allclose(norm(tree), wanted, rtol=1e-6)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_what_is_no_number_is_seen(wrong):
    tree = [jnp.ones((3, 4)).at[1, 2].set(wrong), jnp.ones(5)]
    assert not np.isfinite(norm_of_rows(tree))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("wide", [False, True])
def test_any_dtype_in_one_program(dtype, wide):
    with jax.enable_x64(wide):
        tree = [jnp.full((3, 4), 2.0, dtype), jnp.full(4, 2.0, jnp.float32)]
        np.testing.assert_allclose(jax.jit(norm)(tree), 8.0, rtol=1e-2)


def test_nothing_has_no_length():
    assert norm_of_rows({}) == 0
