import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tokret.models.kernels import expand_conv_bn as kernel_module
from tokret.models.kernels.expand_conv_bn import conv_bn_by_outputs
from tokret.models.trunks.resnet import ResNet


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_trunk_is_the_same_either_way(stride, platform, float64, monkeypatch):
    """What others train, computed here: outputs, gradients, running statistics."""
    trunk = ResNet((1,) * stride, width=4, dtype=jnp.float64)
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.standard_normal((3, 33, 32, 3)))
    variables = trunk.init(jax.random.key(0), images, train=False)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(variables)} == {"float32"}
    variables = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), variables)

    def loss(params):
        (features, _, _), after = trunk.apply(
            {**variables, "params": params}, images, train=True, mutable=["batch_stats"]
        )
        return jnp.sum(features**3), after["batch_stats"]

    gradient = jax.value_and_grad(loss, has_aux=True)
    plain = gradient(variables["params"])
    expanded = []

    def for_other(*operands, default, **forms):
        expanded.append(getattr(default, "func", None) is conv_bn_by_outputs)
        return forms.get(platform, default)(*operands)

    monkeypatch.setattr(jax.lax, "platform_dependent", for_other)
    monkeypatch.setattr(kernel_module, "MOMENT_DTYPES", (jnp.float64,))
    other = gradient(variables["params"])
    assert sum(expanded) == 2 * stride  # each block's last convolution and shortcut
    for one, two in zip(jax.tree.leaves(plain), jax.tree.leaves(other), strict=True):
        atol = 1e-9 * (1 + np.abs(np.asarray(one)).max())
        np.testing.assert_allclose(two, one, rtol=0, atol=atol)


@pytest.mark.parametrize(("dtype", "taken"), [("bfloat16", True), ("float32", False)])
def test_only_bfloat16_takes_moments(dtype, taken):
    trunk = ResNet((1,), width=4, dtype=jnp.dtype(dtype))
    images = jnp.zeros((1, 32, 32, 3))
    variables = jax.eval_shape(
        lambda: trunk.init(jax.random.key(0), images, train=False)
    )
    step = jax.jit(
        lambda v: trunk.apply(v, images, train=True, mutable=["batch_stats"])[0][0]
    )
    text = step.trace(variables).lower(lowering_platforms=("tpu",)).as_text()
    # The convolution that sums over the batch.
    assert ("[f, 0, 1, b]" in text) == taken
