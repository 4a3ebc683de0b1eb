"""What every head has in common, whichever it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tokret.models.build import HEADS

# Small; those that differ in form are built in each form.
SMALL = {
    "token": {"dim": 12, "width": 8, "num_heads": 2, "tokens": 3},
    "token as in the paper": {
        **{"dim": 12, "width": 8, "num_heads": 2, "tokens": 3},
        **{"tokenizer": "paper", "refinement": "paper"},
    },
    "token alone": {
        **{"dim": 12, "width": 8, "num_heads": 2, "tokens": 1, "tokenizer": "paper"},
        **{"attention_layers": 0, "refinement_layers": 0},
    },
    "gem": {"dim": 12},
    "gem without whitening": {"dim": 12, "whiten": False, "p": 1.0},
    "rmac": {"dim": 12},
    "solar": {"dim": 12},
    "netvlad": {"dim": 12, "num_heads": 2, "clusters": 3},
    "delg": {"dim": 12},
}
# The statistics of batch norms over positions are for maps that fill the canvas.
IN_TRAINING_TOO = ("gem", "gem without whitening", "rmac", "delg")
SIZES = np.array([[5, 7], [3, 4], [1, 6]], np.int32)


def at_random(shapes, seed=1):
    """Variables of these shapes: zeros, as training begins with, would hide much."""
    rng = np.random.default_rng(seed)
    drawn = jax.tree.map(
        lambda leaf: jnp.asarray(rng.uniform(-0.2, 0.4, leaf.shape), leaf.dtype), shapes
    )
    if "batch_stats" in drawn:
        drawn["batch_stats"] = jax.tree.map(
            lambda leaf: jnp.abs(leaf) + 0.1, drawn["batch_stats"]
        )
    return drawn


def small(name, dtype):
    head = HEADS[name.split()[0]](**SMALL[name], dtype=dtype)
    shapes = jax.eval_shape(
        lambda x: head.init(jax.random.key(0), x, train=False),
        jax.ShapeDtypeStruct((1, 5, 7, 16), dtype),
    )
    return head, at_random(shapes)


def test_every_head_is_here():
    assert {name.split()[0] for name in SMALL} == set(HEADS)


@pytest.mark.parametrize("name", SMALL)
def test_a_padded_map_equals_the_map_alone(name):
    with jax.enable_x64(True):
        head, variables = small(name, jnp.float64)
        rng = np.random.default_rng(0)
        # Garbage outside the true areas.
        batch = rng.normal(size=(3, 5, 7, 16))
        for train in (False, True) if name in IN_TRAINING_TOO else (False,):
            run = jax.jit(
                lambda x, s=None, t=train: head.apply(variables, x, s, train=t)[0]
            )
            together = run(batch, SIZES)
            assert together.dtype == jnp.float64
            for i, (h, w) in enumerate(SIZES):
                alone = run(batch[i : i + 1, :h, :w])[0]
                np.testing.assert_allclose(together[i], alone, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", SMALL)
def test_bfloat16_stays_close_and_float32_parameters_stay(name):
    features = jax.random.normal(jax.random.key(0), (2, 5, 7, 16)) ** 2
    found = {}
    for dtype in (jnp.float32, jnp.bfloat16):
        head, variables = small(name, dtype)
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
        run = jax.jit(lambda x, m=head, v=variables: m.apply(v, x, train=False)[0])
        out = np.asarray(run(features.astype(dtype)), np.float32)
        found[dtype] = out / np.linalg.norm(out, axis=1, keepdims=True)
    alike = (found[jnp.float32] * found[jnp.bfloat16]).sum(axis=1)
    assert (alike > 0.99).all()
