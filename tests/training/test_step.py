import dataclasses
import functools

import jax
import numpy as np
import pytest

from tokret.errors import UserError
from tokret.models.arcface import ArcFace
from tokret.models.heads.token.head import TokenHead
from tokret.models.retrieval_net import RetrievalNet
from tokret.models.trunks.resnet import BasicBlock, ResNet
from tokret.training.optimiser import make_optimiser
from tokret.training.sharding import make_mesh, padded_classes, to_devices
from tokret.training.step import compile_steps

CLASSES = 5


def batch(seed):
    rng = np.random.default_rng(seed)
    return {
        "images": rng.integers(0, 256, (8, 32, 32, 3), np.uint8),
        "labels": rng.integers(0, CLASSES, 8).astype(np.int32),
    }


@functools.cache
def programs(shape, dropout=0.0, parts=1, average=0.0):
    """The mesh of this shape, and a small model's programs on it."""
    auto = (jax.sharding.AxisType.Auto,) * 2
    mesh = jax.make_mesh(shape, ("data", "model"), axis_types=auto)
    head = TokenHead(
        dim=16,
        width=16,
        num_heads=2,
        tokens=2,
        refinement_layers=1,
        dropout=dropout,
        drop_path=dropout,
    )
    model = RetrievalNet(ResNet(blocks=(1, 1), block=BasicBlock, width=4), head)
    classifiers = {"arcface": ArcFace(CLASSES, padded_classes(CLASSES, mesh), 4.0, 0.2)}
    optimiser = make_optimiser(
        lambda step: 0.01, name="sgd", momentum=0.9, weight_decay=1e-4
    )
    return mesh, compile_steps(
        model,
        classifiers,
        optimiser,
        mesh,
        seed=0,
        grad_accum_steps=parts,
        ema_decay=average,
    )


def run(steps, shape, dropout=0.0, batches=batch):
    """Losses of some steps, and the state after them."""
    mesh, made = programs(shape, dropout)
    state = made.new_state()
    losses = []
    for i in range(steps):
        arrays = to_devices(batches(i), mesh)
        state, metrics = made.train(state, arrays["images"], arrays["labels"])
        losses.append(float(metrics["loss"]))
    return losses, state


def test_a_batch_is_learned_and_dropout_follows_the_seed():
    same = functools.partial(run, 12, (1, 1), 0.1, lambda i: batch(0))
    losses, state = same()
    assert losses[-1] < losses[0] - 0.2
    again, other = same()
    assert again == losses
    jax.tree.map(np.testing.assert_array_equal, state, other)


def test_validation_ignores_filling():
    mesh, made = programs((2, 2))
    state = made.new_state()

    def sums(arrays):
        on_devices = to_devices(arrays, mesh)
        names = ("images", "labels", "weights")
        return made.validate(state, *(on_devices[name] for name in names))

    full = {**batch(0), "weights": np.array([1, 1, 1, 0, 0, 0, 0, 0], np.float32)}
    other = {name: array.copy() for name, array in full.items()}
    other["images"][3:] = 0
    other["labels"][3:] = 0
    first, second = sums(full), sums(other)
    assert float(first["count"]) == 3
    for name in ("loss", "top1", "top5"):
        np.testing.assert_allclose(first[name], second[name], rtol=1e-6)
    assert float(first["top5"]) == 3  # of five classes


@pytest.mark.parametrize("shape", [(3, 1), (-1, 0), (2, 3), (-1, 3)])
def test_meshes_that_cannot_be(shape):
    with pytest.raises(UserError, match="8 devices"):
        make_mesh(jax.devices(), data=shape[0], model=shape[1])


def test_parts_averages_and_a_batch_without_numbers():
    mesh, made = programs((2, 2), 0.0, 2, 0.5)
    state = made.new_state()
    first = jax.tree.map(np.asarray, state.params["model"])
    arrays = to_devices(batch(0), mesh)
    state, metrics = made.train(state, arrays["images"], arrays["labels"])
    assert int(metrics["nonfinite_steps"]) == 0 and float(metrics["gradient_norm"]) > 0
    jax.tree.map(
        lambda mean, old, new: np.testing.assert_allclose(
            mean, (old + new) / 2, rtol=1e-5, atol=1e-7
        ),
        state.ema_params,
        first,
        state.params["model"],
    )
    # What a checkpoint of a diverged run would hold.
    broken = jax.tree.map(lambda leaf: leaf * np.nan, state.params["arcface"])
    bad = dataclasses.replace(state, params={**state.params, "arcface": broken})
    kept = jax.tree.map(np.asarray, bad)
    bad, metrics = made.train(bad, arrays["images"], arrays["labels"])
    assert (
        int(metrics["consecutive_nonfinite_steps"]) == 1
        and int(metrics["last_nonfinite_step"]) == 2
    )
    for name in ("params", "batch_stats", "opt_state", "ema_params"):
        pair = getattr(bad, name), getattr(kept, name)
        jax.tree.map(np.testing.assert_array_equal, *pair)


def test_a_training_step_alone_has_options_of_its_own(monkeypatch):
    options = {"xla_no_such_option": True}
    monkeypatch.setattr("tokret.training.step.training_options", lambda _: options)
    _, made = programs.__wrapped__((8, 1))
    arrays = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in batch(0).values()]
    with pytest.raises(jax.errors.JaxRuntimeError, match="xla_no_such_option"):
        made.train.lower(made.abstract, *arrays).compile()
    weights = jax.ShapeDtypeStruct((8,), np.float32)
    made.validate.lower(made.abstract, *arrays, weights).compile()
