import jax
import jax.numpy as jnp
import numpy as np

from tokret.models.heads.netvlad import NetVLADHead, residuals


def test_residuals_are_softly_assigned_to_the_clusters():
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x, centroids = rng.normal(size=(2, 7, 4)), rng.normal(size=(4, 3))
        mask = np.arange(7) < np.array([[7], [2]])
        vlad, weights = residuals(*map(jnp.asarray, (x, centroids, mask)))
        fractions = np.exp(x @ centroids)  # [b, n, k]
        fractions = fractions / fractions.sum(-1, keepdims=True) * mask[..., None]
        np.testing.assert_allclose(weights, fractions.swapaxes(1, 2), rtol=1e-12)
        distances = x[:, :, None, :] - centroids.T  # [b, n, k, d]
        expected = (fractions[..., None] * distances).sum(1)
        np.testing.assert_allclose(vlad, expected, rtol=1e-10)


def test_near_centroids_bfloat16_does_not_cancel():
    centroids = jnp.eye(4) * 8.0
    x = jnp.repeat(centroids[None], 64, axis=1)  # every feature is a centroid
    vlad, _ = residuals(x.astype(jnp.bfloat16), centroids, None)
    assert float(jnp.abs(vlad).max()) < 0.1


def test_parameters_are_named_as_released():
    head = NetVLADHead(dim=16, clusters=3, num_heads=2)
    shapes = jax.eval_shape(
        lambda x: head.init(jax.random.key(0), x, train=False),
        jax.ShapeDtypeStruct((1, 2, 2, 8), jnp.float32),
    )
    params = shapes["params"]
    names = {"conv", "conv_bn", "encoder0", "centroids", "proj", "proj_bn"}
    assert set(params) == names
    assert params["centroids"].shape == (16, 3)
    assert params["proj"]["kernel"].shape == (48, 16)
