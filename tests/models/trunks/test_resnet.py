import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tokret.models.build import TRUNKS
from tokret.models.masking import downsampled, mask_padding, valid_mask
from tokret.models.trunks.resnet import BasicBlock, ResNet


@pytest.mark.parametrize(
    ("trunk", "channels", "stride"),
    [("resnet50", 2048, 32), ("resnet101", 2048, 32), ("tiny", 128, 16)],
)
def test_every_stride_halves_sides_rounding_up(trunk, channels, stride):
    module = TRUNKS[trunk]()
    images = jax.ShapeDtypeStruct((2, 97, 130, 3), jnp.float32)
    sizes = jax.ShapeDtypeStruct((2, 2), jnp.int32)

    def run(x, s):
        variables = module.init(jax.random.key(0), x, s, train=False)
        return module.apply(variables, x, s, train=False)

    features, left, stages = jax.eval_shape(run, images, sizes)
    expected = [-(-side // stride) for side in (97, 130)]
    assert features.shape == (2, *expected, channels)
    assert left.shape == (2, 2)
    assert [stages[name].shape[1] for name in ("block1", "block2")] == [25, 25]


def test_true_areas():
    sizes = jnp.array([[2, 3], [1, 1]])
    x = jnp.full((2, 2, 4, 1), jnp.nan)
    marks = valid_mask(sizes, x)
    np.testing.assert_array_equal(marks[0], [[1, 1, 1, 0], [1, 1, 1, 0]])
    assert marks[1].sum() == 1 and marks[1, 0, 0]
    assert not np.isnan(mask_padding(x, sizes)[1, 1]).any()
    assert np.isnan(mask_padding(x, None)).all()
    np.testing.assert_array_equal(downsampled(jnp.array([[5, 4]])), [[3, 2]])
    assert downsampled(None) is None


def test_a_cpus_gradient_scatters_nothing():
    module = ResNet(blocks=(1,), block=BasicBlock, width=4)
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)

    def total(params, images):
        return jnp.sum(module.apply(params, images, train=False)[0])

    drawn = functools.partial(module.init, train=False)
    params = jax.eval_shape(drawn, jax.random.key(0), images)
    program = jax.jit(jax.grad(total)).lower(params, images).as_text()
    assert "convolution" in program
    assert "select_and_scatter" not in program
