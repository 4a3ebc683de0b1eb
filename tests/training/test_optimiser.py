import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tokret.errors import UserError
from tokret.training.optimiser import Schedule, decays, make_optimiser

RATES = {"base": 0.01, "batch": 256, "warmup": 1e-4, "warmup_steps": 5, "steps": 25}


def test_linear_decay_comes_to_nothing():
    schedule = Schedule(**RATES, decay="linear")
    assert float(schedule(0)) == pytest.approx(1e-4)
    assert float(schedule(4)) == pytest.approx(0.01)
    assert float(schedule(15)) == pytest.approx(0.005)
    assert float(schedule(25)) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("change", "says"),
    [({"decay": "step"}, "cosine or linear"), ({"warmup_steps": 25}, "do not fit")],
)
def test_schedules_that_cannot_be(change, says):
    with pytest.raises(UserError, match=says):
        Schedule(**{**RATES, "decay": "cosine", **change})


def test_decay_spares_biases_and_single_axes():
    params = {
        "conv": {"kernel": jnp.ones((1, 1, 2, 2)), "bias": jnp.ones(2)},
        "bn": {"scale": jnp.ones(2), "bias": jnp.ones((1, 2))},
        "query": jnp.ones((4, 2)),
    }
    assert decays(params) == {
        "conv": {"kernel": True, "bias": False},
        "bn": {"scale": False, "bias": False},
        "query": True,
    }


def test_optimisers_by_name():
    params = {"kernel": jnp.full((2, 2), 2.0)}
    grads = {"kernel": jnp.full((2, 2), 0.5)}
    optimiser = make_optimiser(
        lambda step: 0.1, name="sgd", momentum=0.9, weight_decay=0.1
    )
    state = optimiser.init(params)
    buffer, value = 0.0, 2.0
    for _ in range(3):
        updates, state = optimiser.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        grad = 0.5 + 0.1 * value
        buffer = 0.9 * buffer + grad
        value -= 0.1 * (grad + 0.9 * buffer)
    np.testing.assert_allclose(params["kernel"], value, rtol=1e-6)
    for options, says in (
        ({"name": "lion"}, "adamw"),
        ({"name": "adamw", "momentum": 0.9}, "optimiser.momentum"),
        ({"name": "adamw"}, "weight_decay is missing"),
    ):
        with pytest.raises(UserError, match=says):
            make_optimiser(lambda step: 0.1, **options)
