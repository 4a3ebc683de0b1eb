import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tokret.models.kernels.residual import relu_of_sum
from tokret.models.trunks.resnet import ResNet


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_relu_of_a_sum_is_one_to_the_bit(dtype):
    rng = np.random.default_rng(0)
    x, y = (jnp.asarray(rng.standard_normal((64, 33)), dtype) for _ in range(2))
    y = y.at[0].set(-x[0]).at[1].set(0).at[2].set(1e30)
    np.testing.assert_array_equal(relu_of_sum(x, y), jax.nn.relu(x + y))


def test_its_gradient_is_that_of_a_relu():
    rng = np.random.default_rng(1)
    x, y, g = (jnp.asarray(rng.standard_normal((64, 33))) for _ in range(3))
    y = y.at[0].set(-x[0])  # sums of 0
    _, back = jax.vjp(relu_of_sum, x, y)
    _, derived = jax.vjp(lambda x, y: jax.nn.relu(x + y), x, y)
    for ours, theirs in zip(back(g), derived(g), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_deep_stage_adds_each_block_once():
    # Each sum that reads the blocks before it again has their outputs as operands.
    trunk = ResNet((1, 12), width=8)
    images = jnp.zeros((2, 64, 64, 3))
    variables = trunk.init(jax.random.key(0), images, train=False)
    program = jax.jit(lambda v, x: trunk.apply(v, x, train=False)[0])
    text = program.lower(variables, images).compile().as_text()
    fusions = [line for line in text.splitlines() if " fusion(" in line]
    operands = [line.split(" fusion(")[1].split(")")[0] for line in fusions]
    assert 5 < max(names.count("%") for names in operands) < 30
