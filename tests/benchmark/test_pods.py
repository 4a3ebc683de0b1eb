"""A tiny training step, compiled for a slice of a pod: what its devices exchange."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import topologies
from jax.sharding import NamedSharding

from tokret.benchmark.pods import TooLargeError, compile_for_pod, make_pod, too_large
from tokret.errors import UserError
from tokret.models.arcface import ArcFace
from tokret.models.heads.gem import GeMHead
from tokret.models.retrieval_net import RetrievalNet
from tokret.models.trunks.resnet import BasicBlock, Bottleneck, ResNet
from tokret.training.optimiser import make_optimiser
from tokret.training.sharding import BATCH, make_mesh
from tokret.training.step import compile_steps

CLASSES, DIM, IMAGES = 1000, 24, 16
QUICK = {"exec_time_optimization_effort": -1.0}


@pytest.fixture(scope="module")
def pod():
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip("libtpu is not installed: pip install 'jax[tpu]'")
    return make_pod


def exchanged(pod, block):
    """Compiles a step on data 2 x model 2."""
    mesh = make_mesh(pod("v5e:2x2").devices, data=2, model=2)
    trunk = ResNet(blocks=(1,), block=block, width=4)
    made = compile_steps(
        RetrievalNet(trunk, GeMHead(dim=DIM)),
        {"arcface": ArcFace(CLASSES, CLASSES, 4.0, 0.2)},
        make_optimiser(lambda _: 0.1, name="sgd", momentum=0.9, weight_decay=1e-4),
        mesh,
        seed=0,
        grad_accum_steps=1,
        ema_decay=0.0,
    )
    rows = NamedSharding(mesh, BATCH)
    lowered = made.train.lower(  # type: ignore[attr-defined]
        made.abstract,
        jax.ShapeDtypeStruct((IMAGES, 32, 32, 3), jnp.uint8, sharding=rows),
        jax.ShapeDtypeStruct((IMAGES,), jnp.int32, sharding=rows),
    )
    return compile_for_pod(lowered, QUICK)


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_class_matrix_and_logits_are_not_exchanged(pod, block):
    step = exchanged(pod, block)
    numbers = np.arange(4).reshape(2, 2)  # as the program numbers the mesh's devices
    along_data = frozenset(map(frozenset, numbers.T.tolist()))
    shard = CLASSES // 2
    # What has the sides of the class matrix, or of the logits, whole or a shard's.
    large = [
        each
        for each in step.collectives
        for _, sides in each.shapes
        if {CLASSES, shard} & set(sides)
    ]
    # One: the gradient of a device's own shard, summed along `data`.
    assert [each.kind for each in large] in (["all-reduce"], ["reduce-scatter"])
    assert large[0].groups == along_data
    assert (shard, DIM) in [tuple(sides) for _, sides in large[0].shapes]
    # And nothing else is nearly as large: descriptors are.
    rest = [each.bytes for each in step.collectives if each not in large]
    assert step.collectives and max(rest) < large[0].bytes / 4
    assert step.flop > 0 and step.accessed > 0


def test_meshes_that_split_a_torus(pod):
    for name, data, model in (
        ("v6e:8x8", 16, 4),
        ("v4:2x2x4", 4, 4),
        ("v5e:2x1", 1, 2),
    ):
        mesh = make_mesh(pod(name).devices, data=data, model=model)
        assert mesh.shape == {"data": data, "model": model}
        assert len({device.id for device in mesh.devices.flat}) == data * model


def test_what_does_not_fit_is_an_error(pod):
    mesh = make_mesh(pod("v5e:2x2").devices, data=4, model=1)
    rows = NamedSharding(mesh, BATCH)
    array = jax.ShapeDtypeStruct((2**17, 2**15), jnp.float32, sharding=rows)
    with pytest.raises(TooLargeError) as caught:
        compile_for_pod(jax.jit(lambda x: (x @ x.T) @ x).lower(array), QUICK)
    assert caught.value.needed > caught.value.available > 15 * 2**30


@pytest.mark.parametrize(
    ("message", "needed", "available"),
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required "
            "for HLO temporaries (19.50G) exceeds available HBM (15.75G).",
            19.5,
            15.75,
        ),
        (
            "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in "
            "memory space hbm. Used 20.25G of 15.75G hbm. Exceeded hbm capacity by "
            "4.50G.",
            20.25,
            15.75,
        ),
    ],
)
def test_the_compilers_words_are_read(message, needed, available):
    error = too_large(message)
    assert (error.needed, error.available) == (needed * 2**30, available * 2**30)
    assert too_large("INTERNAL: " + message.partition(" ")[2]) is None
    assert too_large("RESOURCE_EXHAUSTED: something else") is None


@pytest.mark.parametrize("name", ["", "v5e", "v9:4x4", "v5e:4", "v5e:2x2x2x2"])
def test_unknown_pods_are_refused(name):
    with pytest.raises(UserError, match="topology: .*as v5e:16x16"):
        make_pod(name)


def test_unknown_tori_are_refused(pod):
    with pytest.raises(UserError, match="topology: v5e:3x5: "):
        pod("v5e:3x5")


def test_without_libtpu_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"libtpu, .*pip install 'jax\[tpu\]'"):
        make_pod("v5e:4x4")


def test_another_process_has_libtpu(monkeypatch):
    def locked(*_, **__):
        raise jax.errors.JaxRuntimeError(
            "ABORTED: Internal error when accessing libtpu multi-process lockfile. Run "
            '"$ sudo rm /tmp/libtpu_lockfile".'
        )

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(topologies, "get_topology_desc", locked)
    with pytest.raises(
        UserError, match="another process uses libtpu .*unset ALLOW_MULTIPLE"
    ):
        make_pod("v5e:4x4")
