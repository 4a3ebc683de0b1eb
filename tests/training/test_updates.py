import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tokret.training.state import TrainState
from tokret.training.updates import (
    accumulate_gradients,
    apply_update,
    split_batch,
)


def state(weight):
    params = {"model": {"w": jnp.array(weight)}}
    zero = jnp.zeros((), jnp.int32)
    return TrainState(
        step=zero + 6,
        params=params,
        batch_stats={"seen": jnp.zeros(())},
        opt_state=optax.sgd(0.5).init(params),
        ema_params={"w": jnp.zeros(2)},
        nonfinite_steps=zero,
        consecutive_nonfinite_steps=zero,
        last_nonfinite_step=zero,
    )


def loss(params, batch_stats, part, index):
    """The mean squared distance; the statistics count the rows."""
    value = jnp.mean(jnp.square(part - params["model"]["w"]))
    return value, ({"seen": batch_stats["seen"] + len(part)}, {"loss": value})


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_micro_batches_have_the_gradient_of_the_batch(parts):
    batch = jnp.asarray(np.random.default_rng(0).normal(size=(8, 2)))
    before = state([1.0, -2.0])
    grads, seen, metrics = accumulate_gradients(loss, before, batch, parts)
    gradient = jax.grad(loss, has_aux=True)
    expected, (_, whole) = gradient(before.params, before.batch_stats, batch, 0)
    np.testing.assert_allclose(
        grads["model"]["w"], expected["model"]["w"], rtol=1e-6, atol=1e-7
    )
    np.testing.assert_allclose(metrics["loss"], whole["loss"], rtol=1e-6)
    assert float(seen["seen"]) == 8


def test_every_micro_batch_has_rows_of_every_device():
    # Of four devices with four rows each, a part takes two rows from each.
    parts = split_batch({"x": jnp.arange(16)}, 2)["x"]
    assert parts.shape == (2, 8)
    assert [int(x) // 4 for x in parts[0]] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert sorted(np.asarray(parts).ravel()) == list(range(16))


def test_a_non_finite_update_only_counts():
    before, optimiser = state([1.0, -2.0]), optax.sgd(0.5)
    grads = {"model": {"w": jnp.array([2.0, 4.0])}}
    after = apply_update(
        before, grads, {"seen": jnp.ones(())}, jnp.array(True), optimiser, 0.75
    )
    np.testing.assert_array_equal(after.params["model"]["w"], [0, -4])
    np.testing.assert_array_equal(after.ema_params["w"], [0, -1])
    assert float(after.batch_stats["seen"]) == 1
    counts = (
        after.step,
        after.nonfinite_steps,
        after.consecutive_nonfinite_steps,
        after.last_nonfinite_step,
    )
    assert list(map(int, counts)) == [7, 0, 0, 0]

    nan = jax.tree.map(lambda leaf: leaf * jnp.nan, grads)
    for in_row in (1, 2):
        bad = apply_update(
            after, nan, {"seen": jnp.nan}, jnp.array(False), optimiser, 0.75
        )
        for name in ("params", "ema_params", "batch_stats", "opt_state"):
            jax.tree.map(
                np.testing.assert_array_equal, getattr(bad, name), getattr(after, name)
            )
        assert (
            int(bad.nonfinite_steps) == int(bad.consecutive_nonfinite_steps) == in_row
        )
        assert int(bad.last_nonfinite_step) == int(bad.step) == 7 + in_row
        after = bad
    good = apply_update(bad, grads, bad.batch_stats, jnp.array(True), optimiser, 0.75)
    assert (int(good.nonfinite_steps), int(good.consecutive_nonfinite_steps)) == (2, 0)
    assert int(good.last_nonfinite_step) == 9
