"""The same updates on any mesh, and what every device holds of them."""

import functools
import re

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from tokret.models.arcface import ArcFace
from tokret.models.heads.gem import GeMHead
from tokret.models.heads.token.head import TokenHead
from tokret.models.retrieval_net import RetrievalNet
from tokret.models.trunks.resnet import BasicBlock, ResNet
from tokret.training.optimiser import make_optimiser
from tokret.training.sharding import make_mesh, padded_classes, to_devices, widest
from tokret.training.step import compile_steps

CLASSES = 5
ALONE = (1, 1)
STEPS = 3


def mesh_of(shape):
    devices = jax.devices()[: shape[0] * shape[1]]
    return make_mesh(devices, data=shape[0], model=shape[1])


def programs(mesh, head, classes, **options):
    trunk = ResNet(blocks=(1,), block=BasicBlock, width=8)
    rows = padded_classes(classes, mesh)
    return compile_steps(
        RetrievalNet(trunk, head),
        {"arcface": ArcFace(classes, rows, 4.0, 0.2)},
        make_optimiser(lambda step: 0.01, name="sgd", momentum=0.9, weight_decay=1e-4),
        mesh,
        seed=0,
        grad_accum_steps=1,
        ema_decay=0.5,
        **options,
    )


@functools.cache
def made(shape, shard_optimiser=False):
    head = TokenHead(
        dim=16,
        width=16,
        num_heads=2,
        tokens=2,
        refinement_layers=1,
        dropout=0.1,
        drop_path=0.1,
    )
    mesh = mesh_of(shape)
    return mesh, programs(mesh, head, CLASSES, shard_optimiser=shard_optimiser)


def batch(seed):
    rng = np.random.default_rng(seed)
    return {
        "images": rng.integers(0, 256, (8, 32, 32, 3), np.uint8),
        "labels": rng.integers(0, CLASSES, 8).astype(np.int32),
    }


@functools.cache
def after(steps, shape, shard_optimiser=False):
    """Losses of some steps, and the state after them without padding."""
    mesh, these = made(shape, shard_optimiser)
    state, losses = these.new_state(), []
    for i in range(steps):
        arrays = to_devices(batch(i), mesh)
        state, metrics = these.train(state, arrays["images"], arrays["labels"])
        losses.append(float(metrics["loss"]))
    rows = padded_classes(CLASSES, mesh)
    bare = jax.tree.map(
        lambda leaf: np.asarray(leaf)[:CLASSES] if leaf.shape == (rows, 16) else leaf,
        state,
    )
    return losses, jax.tree.map(np.asarray, bare)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "shard_optimiser"),
    [((8, 1), False), ((4, 2), True), ((2, 4), False)],
)
def test_the_mesh_changes_nothing(shape, shard_optimiser):
    losses, state = after(STEPS, ALONE)
    split, split_state = after(STEPS, shape, shard_optimiser)
    weight = made(shape, shard_optimiser)[1].abstract.params["arcface"]["weight"]
    rows = -(-CLASSES // shape[1])  # 5 classes are padded to 6 or 8
    assert weight.sharding.shard_shape(weight.shape) == (rows, 16)
    np.testing.assert_allclose(split, losses, rtol=1e-5)
    for name in ("params", "batch_stats", "ema_params"):
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5),
            getattr(split_state, name),
            getattr(state, name),
        )
    # Gradients in single: where terms cancel, as for the keys' biases, rounding is all.
    ours, theirs = (
        np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(of.opt_state)])
        for of in (split_state, state)
    )
    assert np.linalg.norm(ours - theirs) < 5e-5 * np.linalg.norm(theirs)


def test_the_longest_side_that_divides_is_split():
    both = ("data", "model")
    assert widest((3, 3, 16, 32), 8) == PartitionSpec(None, None, None, both)
    assert widest((64, 30), 8) == PartitionSpec(both)
    assert widest((7, 3), 8) == widest((), 8) == PartitionSpec()


def bytes_of(step, abstract):
    """Bytes of a step's state on a device, and of what it needs meanwhile."""
    images = jax.ShapeDtypeStruct((8, 32, 32, 3), np.uint8)
    labels = jax.ShapeDtypeStruct((8,), np.int32)
    compiled = step.lower(abstract, images, labels).compile()
    analysis = compiled.memory_analysis()
    return analysis.argument_size_in_bytes, analysis.temp_size_in_bytes, compiled


@pytest.mark.slow
def test_the_optimisers_state_is_split_over_all_devices():
    found = {}
    for spread in (False, True):
        these = programs(
            mesh_of((4, 2)), GeMHead(dim=64), CLASSES, shard_optimiser=spread
        )
        found[spread], *_ = bytes_of(these.train, these.abstract)
    moved = sum(
        leaf.size * leaf.dtype.itemsize
        for name in ("opt_state", "ema_params")
        for leaf in jax.tree.leaves(getattr(these.abstract, name))
        if any(side % 8 == 0 for side in leaf.shape)
    )
    assert found[False] - found[True] == pytest.approx(moved * 7 / 8, rel=0.05)
    assert found[True] < 0.6 * found[False]


@functools.cache
def classifier_step(classes, model):
    """A step of many classes: bytes of its arguments and its scratch, and its HLO."""
    mesh = mesh_of((8 // model, model))
    these = programs(mesh, GeMHead(dim=64), classes)
    arguments, scratch, compiled = bytes_of(these.train, these.abstract)
    return arguments, scratch, compiled.as_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("classes", "models"), [(81_313, (2, 4, 8)), (1_000_000, (8,))]
)
def test_the_classifier_is_split_and_never_gathered(classes, models):
    whole, scratch, _ = classifier_step(classes, 1)
    for model in models:
        rows = -(-classes // model)  # on each device
        arguments, needed, text = classifier_step(classes, model)
        # The class matrix and its momentum, in float32.
        saved = 2 * 4 * 64 * (classes - rows)
        assert whole - arguments == pytest.approx(saved, rel=0.01)
        # Its gradient, and the logits of this device's photos and classes.
        assert needed < 1.2 * scratch
        assert re.search(rf"f32\[{rows},64\]", text)
        # No logits of all classes anywhere, in any layout.
        assert not re.search(rf"\[\d+,{rows * model}\]|\[{rows * model},\d+\]", text)


@pytest.fixture(scope="module")
def saved(opened, tmp_path_factory):
    """A run's folder with a checkpoint of step 2, taken on 4 x 2, and its state."""
    workdir = tmp_path_factory.mktemp("run")
    mesh, these = made((4, 2), True)
    state = these.new_state()
    for i in range(2):
        arrays = to_devices(batch(i), mesh)
        state, _ = these.train(state, arrays["images"], arrays["labels"])
    with opened(workdir) as checkpoints:
        checkpoints.save(state)
    return workdir, jax.tree.map(np.asarray, state)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [ALONE, (2, 4)])
def test_a_run_goes_on_on_another_mesh(opened, saved, shape):
    workdir, before = saved
    mesh, these = made(shape)
    with opened(workdir) as checkpoints:
        state = checkpoints.restore(these.abstract, 2)

    def same(ours, theirs):
        if ours.shape != theirs.shape:  # 5, 6 or 8 rows of 5 classes
            assert not np.any(ours[CLASSES:]) and not np.any(theirs[CLASSES:])
            ours, theirs = ours[:CLASSES], theirs[:CLASSES]
        np.testing.assert_array_equal(ours, theirs)

    jax.tree.map(same, state, before)
    arrays = to_devices(batch(2), mesh)
    state, metrics = these.train(state, arrays["images"], arrays["labels"])
    losses, _ = after(STEPS, ALONE)
    assert float(metrics["loss"]) == pytest.approx(losses[2], rel=1e-5)
    assert int(state.step) == 3
