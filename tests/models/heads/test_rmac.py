import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tokret.models.build import build_model
from tokret.models.heads.rmac import (
    Region,
    RMACHead,
    extra_steps,
    region_table,
    regional_maxima,
    regions_of,
    spatial_max,
)


def test_regions_of_a_square_and_of_a_strip():
    # 1 + 1 + 4 + 9, of sides 6, 6, 4, 3.
    square = regions_of(6, 6, 3)
    assert [r.width for r in square] == [6, 6, *[4] * 4, *[3] * 9]
    assert {(r.top, r.left) for r in square if r.width == 4} == {
        *((0, 0), (0, 2), (2, 0), (2, 2))
    }
    # Twice as wide as high: of two regions side by side none overlap, of three half,
    # of four two thirds; half is nearest to 0.4.
    assert extra_steps(5, 10) == 2 and extra_steps(5, 5) == 0
    strip = [Region(0, left, 5, 5) for left in (0, 2, 5)]
    assert regions_of(5, 10, 1) == (Region(0, 0, 5, 10), *strip)
    assert regions_of(1, 1, 3) == (Region(0, 0, 1, 1), Region(0, 0, 1, 1))


@pytest.mark.parametrize("longest", [33, 64])
def test_every_region_is_within_its_map(longest):
    table = region_table(longest, 24, 3)
    top, left, height, width = np.moveaxis(table, -1, 0)
    rows = np.arange(1, longest + 1)[:, None, None]
    columns = np.arange(1, 25)[None, :, None]
    assert (top >= 0).all() and (left >= 0).all()
    assert (top + height <= rows).all() and (left + width <= columns).all()
    assert ((height > 0) == (width > 0)).all()
    # The last row of regions reaches the map's end, but for rounding.
    assert (rows[..., 0] - (top + height)[..., 1:].max(-1) <= 1).all()


def by_hand(x, levels):
    """Sums over the regions of one map [h, w, c]."""
    total = 0.0
    for i, j, h, w in regions_of(*x.shape[:2], levels):
        maxima = x[i : i + h, j : j + w].max((0, 1))
        total = total + maxima / (np.linalg.norm(maxima) + 1e-6)
    return total


def test_static_and_masked_regions_agree():
    sizes = np.array([[9, 11], [11, 9], [4, 11], [11, 1], [1, 1], [2, 3], [7, 7]])
    with jax.enable_x64(True):
        batch = np.random.default_rng(0).normal(size=(len(sizes), 11, 11, 6))
        pool = jax.jit(functools.partial(regional_maxima, levels=3))
        masked = pool(batch, sizes)
        for i, (h, w) in enumerate(sizes):
            expected = by_hand(batch[i, :h, :w], 3)
            np.testing.assert_allclose(masked[i], expected, rtol=1e-12)
            if i < 3:
                alone = pool(batch[i : i + 1, :h, :w], None)[0]
                np.testing.assert_allclose(alone, expected, rtol=1e-12)


def test_a_dead_map_has_a_finite_gradient():
    @jax.jit
    @jax.grad
    def gradient(x):
        both = (regional_maxima(x, s, 3) for s in (None, jnp.array([[2, 1]])))
        return sum(pooled.sum() for pooled in both)

    assert np.isfinite(np.asarray(gradient(jnp.zeros((1, 2, 2, 2))))).all()


def test_the_sum_is_normalised_in_training_in_any_case():
    x = jax.random.uniform(jax.random.key(0), (1, 4, 4, 6))
    ours, released = RMACHead(dim=3), RMACHead(dim=3, normalise_in_evaluation=False)
    variables = jax.jit(lambda: ours.init(jax.random.key(1), x, train=False))()

    def run(head, train):
        return np.asarray(jax.jit(lambda: head.apply(variables, x, train=train)[0])())

    np.testing.assert_array_equal(run(ours, False), run(ours, True))
    np.testing.assert_array_equal(run(released, True), run(ours, True))
    assert np.abs(run(released, False) - run(ours, False)).max() > 0.1


def test_the_gradient_of_equal_maxima_goes_to_one_position():
    x = jnp.zeros((1, 2, 2, 1)).at[0, 1].set(3.0)
    grads = jax.grad(lambda x: spatial_max(x).sum())(x)
    np.testing.assert_array_equal(grads[0, :, :, 0], [[0, 0], [1, 0]])


def test_gradients_of_a_whole_model_are_finite():
    # A compiler may compute features twice, rounded otherwise: see `spatial_max`.
    model = build_model(trunk="tiny", head="rmac", dtype="float32", dim=8)
    images = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
    variables = jax.jit(lambda x: model.init(jax.random.key(1), x, train=False))(images)

    def loss(params):
        statistics = {"batch_stats": variables["batch_stats"]}
        (out, _), _ = model.apply(
            {"params": params, **statistics}, images, train=True, mutable="batch_stats"
        )
        return out[:, 0].sum()

    grads = jax.jit(jax.grad(loss))(variables["params"])
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(grads))
