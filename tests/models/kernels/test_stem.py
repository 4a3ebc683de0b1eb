import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from tokret.models.kernels.stem import direct_stem_conv, quad_stem_conv
from tokret.models.layers import he_normal
from tokret.models.trunks.convolutions import Conv


@pytest.mark.parametrize("height", [1, 2, 7, 8])
@pytest.mark.parametrize("width", [5, 6])
def test_quads_are_the_same_convolution(height, width):
    """Outputs and both gradients, of sides of either parity."""
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x = jnp.asarray(rng.standard_normal((2, height, width, 3)))
        kernel = jnp.asarray(rng.standard_normal((7, 7, 3, 5)))
        found, back = jax.vjp(quad_stem_conv, x, kernel)
        wanted, back_as_written = jax.vjp(direct_stem_conv, x, kernel)
        g = jnp.asarray(rng.standard_normal(wanted.shape))
        for ours, theirs in zip(
            (found, *back(g)), (wanted, *back_as_written(g)), strict=True
        ):
            np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_it_is_flax_s_convolution_by_the_same_names():
    theirs = nn.Conv(
        *(4, (7, 7), (2, 2), [(3, 3)] * 2), use_bias=False, kernel_init=he_normal
    )
    x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 9, 8, 3)), jnp.float32)
    variables = theirs.init(jax.random.key(3), x)
    ours = Conv(4, 7, 2, jnp.float32)
    mine = ours.init(jax.random.key(3), x, train=True)
    np.testing.assert_array_equal(
        mine["params"]["kernel"], variables["params"]["kernel"]
    )
    np.testing.assert_allclose(
        ours.apply(variables, x, train=True), theirs.apply(variables, x), atol=1e-6
    )


def test_tensor_cores_get_whole_eighths_of_channels():
    x, kernel = jnp.zeros((1, 8, 8, 3)), jnp.zeros((7, 7, 3, 8))
    program = jax.make_jaxpr(quad_stem_conv)(x, kernel)
    (found,) = [e for e in program.eqns if "conv" in str(e.primitive)]
    assert [v.aval.shape for v in found.invars] == [(1, 4, 4, 16), (8, 4, 4, 16)]
