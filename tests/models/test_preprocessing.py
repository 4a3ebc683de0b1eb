import jax.numpy as jnp
import numpy as np

from tokret.models.preprocessing import IMAGENET, normalise


def test_bytes_become_imagenets_units():
    images = jnp.array([[[[0, 128, 255]]]], jnp.uint8)
    found = normalise(images, IMAGENET)
    assert found.dtype == jnp.float32
    expected = [
        -0.485 / 0.229,
        (128 / 255 - 0.456) / 0.224,
        (1 - 0.406) / 0.225,
    ]
    np.testing.assert_allclose(found[0, 0, 0], np.array(expected), rtol=1e-6)
