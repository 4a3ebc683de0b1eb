import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tokret.errors import UserError
from tokret.training.optimiser import (
    OPTIMISERS,
    Schedule,
    decayed_momentum,
    decays,
    freeze_modules,
    make_optimiser,
)

RATES = {
    **{"base_lr": 0.01, "reference_batch_size": 256, "warmup_init_lr": 1e-4},
    **{"warmup_steps": 5, "steps": 25},
}


def test_linear_decay_comes_to_nothing():
    schedule = Schedule(**RATES, decay="linear")
    assert float(schedule(0)) == pytest.approx(1e-4)
    assert float(schedule(4)) == pytest.approx(0.01)
    assert float(schedule(15)) == pytest.approx(0.005)
    assert float(schedule(25)) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("decay", ["cosine", "linear"])
def test_after_a_restart_the_rates_are_those_of_a_new_schedule(decay):
    def rates(**fields):
        schedule = jax.jit(Schedule(**{**RATES, "decay": decay, **fields}))
        return [float(schedule(step)) for step in range(fields["steps"])]

    restarted = rates(steps=47, restart_steps=(25, 37))
    assert restarted == rates(steps=25) + rates(steps=12) + rates(steps=10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"restart_steps": (21,)}, "warmup_steps is 5; .* less than all steps, 4: "),
        ({"decay": "step"}, "one of: cosine, linear"),
        ({"warmup_steps": 25}, "warmup_steps is 25; it must be less"),
    ],
)
def test_wrong_schedules_are_refused(change, message):
    with pytest.raises(UserError, match=message):
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
    with pytest.raises(UserError, match="name is 'lion'; it must be one of: adamw"):
        make_optimiser(lambda step: 0.1, name="lion")


def updates_of(optimiser, grads, params, steps):
    state, found = optimiser.init(params), []
    for _ in range(steps):
        updates, state = optimiser.update(grads, state, params)
        found.append(jax.tree.map(lambda leaf: float(leaf[0, 0]), updates["model"]))
    return found


FIELDS = {"sgd": {"momentum": 0.9}, "adamw": {}}


@pytest.mark.parametrize(
    "options",
    [
        *({"name": name, **FIELDS[name]} for name in OPTIMISERS),
        {
            "name": "sgd",
            "momentum": 0.9,
            "trunk_lr_multiplier": 0.5,
            "max_grad_norm": 1.0,
        },
    ],
    ids=[*OPTIMISERS, "everything"],
)
def test_a_non_finite_gradient_leaves_the_state_to_the_bit(options):
    leaf = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    params = {"model": {"trunk": {"stem": leaf, "block0": leaf}, "head": leaf}}
    made = make_optimiser(lambda step: 0.1 * step, weight_decay=0.1, **options)
    optimiser = freeze_modules(made, ["stem"])
    update = jax.jit(optimiser.update)
    _, before = update(params, optimiser.init(params), params)
    bad = jax.tree.map(lambda leaf: leaf * jnp.nan, params)
    _, after = update(bad, before, params, finite=jnp.array(False))
    jax.tree.map(np.testing.assert_array_equal, before, after)
    _, moved = update(params, before, params, finite=jnp.array(True))
    assert all(
        np.any(np.asarray(old) != new)
        for old, new in zip(
            jax.tree.leaves(before), jax.tree.leaves(moved), strict=True
        )
    )


def test_momentum_is_that_of_optax():
    rng = np.random.default_rng(0)

    def draw():
        return {
            name: jnp.asarray(rng.normal(size=shape), jnp.float32)
            for name, shape in (("kernel", (3, 4)), ("bias", (4,)))
        }

    ours = decayed_momentum(momentum=0.9, weight_decay=0.1)
    theirs = optax.chain(
        optax.add_decayed_weights(0.1, mask=decays), optax.trace(0.9, nesterov=True)
    )
    params = draw()
    state, expected_state = ours.init(params), theirs.init(params)
    for _ in range(3):
        grads = draw()
        found, state = jax.jit(ours.update)(grads, state, params)
        expected, expected_state = theirs.update(grads, expected_state, params)
        for pair in ((found, expected), (state, expected_state[1])):
            jax.tree.map(
                functools.partial(np.testing.assert_allclose, rtol=1e-6), *pair
            )


def test_the_trunk_is_frozen_and_then_has_a_rate_of_its_own():
    leaf = {"kernel": jnp.ones((2, 2))}
    params = {"model": {"trunk": leaf, "head": leaf}, "arcface": {"trunk": leaf}}
    plain = {"name": "sgd", "momentum": 0.9, "weight_decay": 0.1}
    usual = updates_of(make_optimiser(lambda step: 0.1, **plain), params, params, 2)
    made = make_optimiser(
        lambda step: 0.1, **plain, frozen_steps=2, trunk_lr_multiplier=0.5
    )
    found = updates_of(made, params, params, 3)
    trunk = [step["trunk"]["kernel"] for step in found]
    head = [step["head"]["kernel"] for step in found]
    assert trunk[:2] == [0, 0]
    assert head[:2] == [step["head"]["kernel"] for step in usual]
    # Only weight decay's momentum waited.
    gradients = [0.1, 0.1, 1.1]
    trace = sum(g * 0.9**i for i, g in enumerate(reversed(gradients)))
    assert trunk[2] == pytest.approx(-0.5 * 0.1 * (1.1 + 0.9 * trace))


def test_gradients_are_clipped_together():
    params = {"model": {"trunk": jnp.ones((1, 1)), "head": jnp.ones((1, 1))}}
    grads = {"model": {"trunk": jnp.array([[3.0]]), "head": jnp.array([[4.0]])}}
    made = make_optimiser(
        lambda step: 1.0, name="sgd", momentum=0.0, weight_decay=0.0, max_grad_norm=1.0
    )
    (found,) = updates_of(made, grads, params, 1)
    assert found == pytest.approx({"trunk": -0.6, "head": -0.8})


def test_frozen_modules_do_not_decay_and_have_no_momentum():
    leaf = {"kernel": jnp.ones((2, 2))}
    trunk = {"stem": leaf, "block0": leaf}
    params = {"model": {"trunk": trunk, "head": leaf}, "arcface": {"stem": leaf}}
    plain = {"name": "sgd", "momentum": 0.9, "weight_decay": 0.1}
    usual = make_optimiser(lambda step: 0.1, **plain)
    frozen = freeze_modules(usual, ["stem"])
    wanted, _ = usual.update(params, usual.init(params), params)
    found, state = frozen.update(params, frozen.init(params), params)
    assert float(jnp.abs(found["model"]["trunk"].pop("stem")["kernel"]).max()) == 0
    del wanted["model"]["trunk"]["stem"]
    jax.tree.map(np.testing.assert_array_equal, found, wanted)
    momenta = [leaf for leaf in jax.tree.leaves(state) if leaf.ndim == 2]
    assert len(momenta) == 3  # block0, head, arcface
