import types

import jax
import jax.numpy as jnp
import pytest

from tokret.models.arcface import ArcFace
from tokret.models.heads.gem import GeMHead
from tokret.models.retrieval_net import RetrievalNet
from tokret.models.trunks.resnet import BasicBlock, ResNet
from tokret.training.utilisation import peak_images, product_flop, training_flop


def flop(function, *shapes):
    arrays = [jnp.zeros(shape) for shape in shapes]
    return product_flop(jax.make_jaxpr(function)(*arrays).jaxpr)


def test_products_are_counted_wherever_they_stand():
    matmul = 2 * 3 * 5 * 7
    assert flop(jnp.matmul, (3, 5), (5, 7)) == matmul
    batched = flop(lambda a, b: jnp.einsum("bij,bjk->bik", a, b), (4, 3, 5), (4, 5, 7))
    assert batched == 4 * matmul
    assert flop(jax.jit(lambda a, b: jnp.tanh(a @ b) + 1), (3, 5), (5, 7)) == matmul
    square = 2 * 3 * 3 * 3

    def scanned(a):
        return jax.lax.scan(lambda c, _: (c @ a, None), a, None, length=6)[0]

    assert flop(scanned, (3, 3)) == 6 * square
    # What is computed again is there twice, and counts twice here.
    again = jax.checkpoint(lambda a: jnp.sin(jnp.sin(a @ a) @ a))
    assert flop(again, (3, 3)) == 2 * square


@pytest.mark.parametrize(("groups", "kernel"), [(1, (3, 3, 4, 8)), (4, (3, 3, 1, 8))])
def test_convolutions(groups, kernel):
    def convolve(x, w):
        return jax.lax.conv_general_dilated(
            *(x, w, (2, 2), "SAME"),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    expected = 2 * (2 * 5 * 6 * 8) * (9 * kernel[2])
    assert flop(convolve, (2, 10, 12, 4), kernel) == expected
    if groups == 1:
        both = jax.grad(lambda x, w: jnp.sum(convolve(x, w) ** 2), argnums=(0, 1))
        assert flop(both, (2, 10, 12, 4), kernel) == 3 * expected


def small(**fields):
    trunk = ResNet(blocks=(1, 1), block=BasicBlock, width=4, **fields)
    model = RetrievalNet(trunk, GeMHead(dim=16))
    shapes = jax.eval_shape(
        lambda: model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False)
    )
    return model, shapes, {"arcface": ArcFace(10, 12, 4.0, 0.2)}


def test_remat_and_padded_classes_are_no_work_of_the_model():
    found = training_flop(*small(), size=32)
    assert found == training_flop(*small(remat=True), size=32)
    more = (*small()[:2], {"arcface": ArcFace(11, 12, 4.0, 0.2)})
    assert training_flop(*more, size=32) - found == 3 * 2 * 16
    # A frozen stem, 7x7 to 4 channels at half the side, has no gradient, nor has the
    # convolution behind it one to its input, 3x3 to 4 channels at a quarter.
    saved = 2 * 16 * 16 * 4 * 49 * 3 + 2 * 8 * 8 * 4 * 9 * 4
    assert found - training_flop(*small(frozen_stages=1), size=32) == saved
    # Fully convolutional but for the head and the logits.
    assert 3.9 < training_flop(*small(), size=64) / found < 4


def test_the_peak_of_known_devices():
    def device(kind):
        return types.SimpleNamespace(device_kind=kind)

    one = 197e12 / training_flop(*small(), size=32)
    assert peak_images([device("TPU v5 lite")] * 8, *small(), size=32) == 8 * one
    assert peak_images([device("NVIDIA H200")], *small(), size=32) > 5 * one
    for unknown in ("cpu", "NVIDIA H100 80GB HBM3 MIG 1g.10gb"):
        assert peak_images([device(unknown)], *small(), size=32) is None
