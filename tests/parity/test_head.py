import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tokret.convert.released import from_released, variable_of
from tokret.models.heads.token.head import TokenHead

NO_DROPOUT = {"width": 64, "dropout": 0.0, "drop_path": 0.0, "dtype": jnp.float64}
TAPS = ("local", "lfsa", "tokens", "refined0", "refined1")


@pytest.fixture
def case(golden, draw):
    names = json.loads(golden("head_names.json").read_text())
    state_dict = draw(names, "tr.")
    variables = {
        collection: tree["head"]
        for collection, tree in from_released(state_dict).items()
    }
    return np.load(golden("head.npz")), jax.tree.map(jnp.asarray, variables)


def features(arrays):
    return jnp.asarray(arrays["features"].transpose(0, 2, 3, 1))


def in_our_layout(arrays, prefix):
    """The golden arrays of one kind, by our names: {collection: tree}."""
    chosen = {
        f"tr.{key.removeprefix(prefix)}": arrays[key]
        for key in arrays.files
        if key.startswith(prefix)
    }
    return from_released(chosen)


def test_every_stage_in_evaluation(case):
    arrays, variables = case
    run = jax.jit(lambda v, x: TokenHead(**NO_DROPOUT).apply(v, x, train=False))
    embedding, taps = run(variables, features(arrays))
    for name in TAPS:
        np.testing.assert_allclose(taps[name], arrays[name], rtol=1e-8, atol=1e-10)
    maps = np.asarray(taps["attention"]).reshape(arrays["attention"].shape)
    np.testing.assert_allclose(maps, arrays["attention"], rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(embedding, arrays["eval_out"], rtol=1e-8, atol=1e-10)


def test_training_mode_gradients_and_running_statistics(case):
    arrays, variables = case

    def loss(params, x):
        (out, _), after = TokenHead(**NO_DROPOUT).apply(
            {"params": params, "batch_stats": variables["batch_stats"]},
            x,
            train=True,
            mutable=["batch_stats"],
        )
        return (out * arrays["loss_weights"]).sum(), (out, after["batch_stats"])

    grad = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    (value, (out, after)), (grads, grad_x) = grad(variables["params"], features(arrays))
    np.testing.assert_allclose(out, arrays["train_out"], rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(value, arrays["loss"], rtol=1e-8)
    theirs = arrays["grad_features"].transpose(0, 2, 3, 1)
    np.testing.assert_allclose(grad_x, theirs, rtol=1e-8, atol=1e-10)
    expected = in_our_layout(arrays, "grad/")["params"]["head"]
    compared = jax.tree.leaves_with_path(expected)
    assert len(compared) > 30
    for path, theirs in compared:
        ours = grads
        for key in path:
            ours = ours[key.key]
        np.testing.assert_allclose(
            ours, theirs, rtol=1e-8, atol=1e-9, err_msg=jax.tree_util.keystr(path)
        )
    kept = in_our_layout(arrays, "after/")["batch_stats"]["head"]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-12),
        after,
        kept,
    )


def test_gradient_norms_of_every_parameter(case, golden):
    arrays, variables = case
    x = features(arrays)

    def loss(params):
        (out, _), _ = TokenHead(**NO_DROPOUT).apply(
            {"params": params, "batch_stats": variables["batch_stats"]},
            x,
            train=True,
            mutable=["batch_stats"],
        )
        return (out * arrays["loss_weights"]).sum()

    grads = jax.jit(jax.grad(loss))(variables["params"])
    for key in arrays.files:
        if key.startswith("gradnorm/"):
            name = key.removeprefix("gradnorm/")
            (_, path), _ = variable_of(f"tr.{name}")
            ours = grads
            for part in path.split("/")[1:]:
                ours = ours[part]
            # Where the true gradient is zero (a bias before a batch norm), both are
            # rounding.
            norm = float(jnp.linalg.norm(ours))
            np.testing.assert_allclose(norm, arrays[key], rtol=1e-8, atol=1e-10)
