import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tokret.convert.released import from_released
from tokret.models.arcface import arcface_logits, cross_entropy
from tokret.models.heads.token.head import TokenHead
from tokret.training.optimiser import Schedule, sgd


def test_the_schedule_of_every_step(golden):
    theirs = np.load(golden("schedule.npz"))["lr"]
    ours = Schedule(
        base_lr=0.01,
        reference_batch_size=128,
        warmup_init_lr=1e-4,
        warmup_steps=5 * 20,
        steps=30 * 20,
        decay="cosine",
    )
    rates = jax.vmap(ours)(jnp.arange(600))
    np.testing.assert_allclose(rates, theirs, rtol=1e-8, atol=1e-15)


def test_six_steps_of_sgd(golden, draw):
    case = np.load(golden("trajectory.npz"))
    names = json.loads(golden("head_names.json").read_text())
    state_dict = draw(names, "tr.") | draw([("classifier.weight", (50, 1024))])
    converted = jax.tree.map(jnp.asarray, from_released(state_dict))
    params = {"head": converted["params"]["head"], "arcface": converted["arcface"]}
    head = TokenHead(width=64, dropout=0.0, drop_path=0.0, dtype=jnp.float64)
    rates = jnp.asarray(case["lr"])
    optimiser = sgd(lambda step: rates[step], momentum=0.9, weight_decay=1e-4)

    @jax.jit
    def step(params, batch_stats, opt_state, features, labels):
        def loss_of(params):
            (out, _), after = head.apply(
                {"params": params["head"], "batch_stats": batch_stats},
                features,
                train=True,
                mutable=["batch_stats"],
            )
            logits = arcface_logits(
                out, params["arcface"]["weight"], labels, scale=32.0, margin=0.2
            )
            return cross_entropy(logits, labels).mean(), after["batch_stats"]

        (loss, stats), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
        updates, opt_state = optimiser.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), stats, opt_state, loss

    stats, opt_state = converted["batch_stats"]["head"], optimiser.init(params)
    for features, labels, theirs in zip(
        case["features"], case["labels"], case["loss"], strict=True
    ):
        x = jnp.asarray(features.transpose(0, 2, 3, 1))
        params, stats, opt_state, loss = step(
            params, stats, opt_state, x, jnp.asarray(labels)
        )
        np.testing.assert_allclose(loss, theirs, rtol=1e-8)
    final = {
        key.removeprefix("final/"): case[key]
        for key in case.files
        if key.startswith("final/")
    }
    expected = from_released(final)
    expected = {**expected["params"], "arcface": expected.get("arcface", {})}
    for path, theirs in jax.tree.leaves_with_path(expected):
        ours = functools.reduce(lambda tree, key: tree[key.key], path, params)
        np.testing.assert_allclose(
            ours, theirs, rtol=1e-8, atol=1e-11, err_msg=jax.tree_util.keystr(path)
        )
