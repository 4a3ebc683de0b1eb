"""The rivals learn, from the demo's own config, on a mesh of four devices."""

import functools

import jax
import numpy as np
import pytest

from tokret.configs import demo
from tokret.models.build import build_model
from tokret.models.heads.delg import MARGIN, SCALE
from tokret.training.optimiser import make_optimiser
from tokret.training.sharding import padded_classes, to_devices
from tokret.training.state import make_classifiers
from tokret.training.step import compile_steps

CLASSES = 5


@functools.cache
def programs(head):
    config = demo.get_config(head)
    auto = (jax.sharding.AxisType.Auto,) * 2
    mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=auto)
    model = build_model(**config.model)
    rows = padded_classes(CLASSES, mesh)
    classifiers = make_classifiers(model, CLASSES, rows, **config.arcface)
    fields = config.optimiser.to_dict()
    del fields["frozen_epochs"]
    optimiser = make_optimiser(lambda step: 1e-3, **fields)
    made = compile_steps(model, classifiers, optimiser, mesh, seed=0)
    return mesh, classifiers, made


def batch():
    rng = np.random.default_rng(0)
    return {
        "images": rng.integers(0, 256, (8, 32, 32, 3), np.uint8),
        "labels": rng.integers(0, CLASSES, 8).astype(np.int32),
        "weights": np.ones(8, np.float32),
    }


@pytest.mark.slow
@pytest.mark.parametrize("head", ["gem", "delg"])
def test_a_batch_is_learned(head):
    mesh, _, made = programs(head)
    state, arrays = made.new_state(), to_devices(batch(), mesh)
    found = []
    for _ in range(6):
        state, metrics = made.train(state, arrays["images"], arrays["labels"])
        found.append({name: float(value) for name, value in metrics.items()})
    assert found[-1]["loss"] < found[0]["loss"] - 0.5
    names = {"loss", "top1", "top5", "weight_norm", "gradient_norm"}
    names |= {"nonfinite_steps", "consecutive_nonfinite_steps", "last_nonfinite_step"}
    assert set(found[0]) == names | ({"local_loss"} if head == "delg" else set())
    if head == "delg":
        assert found[-1]["local_loss"] < found[0]["local_loss"]
        assert found[0]["local_loss"] < found[0]["loss"]
    # What is validated is the descriptor.
    sums = made.validate(state, *(arrays[n] for n in ("images", "labels", "weights")))
    assert set(sums) == {"loss", "top1", "top5", "count"}


def test_both_class_matrices_are_split_with_their_momentum():
    _, classifiers, made = programs("delg")
    local = classifiers["arcface_local"]
    assert (local.scale, local.margin) == (SCALE, MARGIN) == (128**0.5, 0.1)
    split = {
        jax.tree_util.keystr(path): leaf.sharding.shard_shape(leaf.shape)
        for path, leaf in jax.tree.leaves_with_path(made.abstract)
        if leaf.sharding.shard_shape(leaf.shape) != leaf.shape
    }
    assert sorted(split.values()) == [(3, 128)] * 3 + [(3, 256)] * 3
    assert all("arcface" in name for name in split)


def test_a_local_loss_changes_no_other_initial_weight():
    states = {head: programs(head)[2].new_state().params for head in ("gem", "delg")}
    assert set(states["delg"]) - set(states["gem"]) == {"arcface_local"}
    same = {name: states["delg"]["model"][name] for name in ("trunk", "head")}
    jax.tree.map(np.testing.assert_array_equal, states["gem"]["model"], same)
    weights = [states[head]["arcface"]["weight"] for head in ("gem", "delg")]
    np.testing.assert_array_equal(*weights)
    # Drawn on its own: not the other matrix, cut to size.
    local = states["delg"]["arcface_local"]["weight"][:CLASSES]
    assert (
        abs(np.corrcoef(local.ravel(), weights[0][:CLASSES, :128].ravel())[0, 1]) < 0.2
    )
