"""The paper's rivals against the authors' own, at their golden inputs."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tokret.convert.released import from_released
from tokret.models.heads.gem import generalised_mean
from tokret.models.heads.netvlad import NetVLADHead
from tokret.models.heads.rmac import regional_maxima
from tokret.models.second_order import SecondOrderAttention

CLOSE = {"rtol": 1e-8, "atol": 1e-10}


@pytest.fixture
def case(golden):
    return np.load(golden("baselines.npz"))


@pytest.fixture
def variables(golden, draw):
    """Returns a function: (part, its name in a whole model) -> the head's variables."""
    names = json.loads(golden("baseline_names.json").read_text())

    def converted(part, prefix):
        drawn = draw(names[part])
        found = from_released({f"{prefix}.{name}": w for name, w in drawn.items()})
        return {
            collection: jax.tree.map(jnp.asarray, tree["head"])
            for collection, tree in found.items()
        }

    return converted


def nhwc(array):
    return jnp.asarray(array.transpose(0, 2, 3, 1))


def test_gem_and_solar(case, variables):
    x = nhwc(case["solar_in"])
    pool = jax.jit(lambda x: generalised_mean(x, None, 3.0))
    np.testing.assert_allclose(pool(x), case["gem_out"][:, :, 0, 0], **CLOSE)
    weights = {k: tree["soa"] for k, tree in variables("solar", "pooling").items()}
    block = SecondOrderAttention(x.shape[-1] // 2, jnp.float64)
    gathered = jax.jit(lambda v, x: block.apply(v, x, None, train=False))(weights, x)
    assert float(jnp.abs(gathered - x).max()) > 0.1
    np.testing.assert_allclose(pool(gathered), case["solar_out"][:, :, 0, 0], **CLOSE)


def test_netvlad(case, variables):
    head = NetVLADHead(dim=64, clusters=4, num_heads=8, dtype=jnp.float64)
    run = jax.jit(lambda v, x: head.apply(v, x, train=False)[0])
    out = run(variables("netvlad", "vlad"), nhwc(case["netvlad_in"]))
    np.testing.assert_allclose(out, case["netvlad_out"], **CLOSE)


def test_rmac_alone_and_in_one_padded_batch(case):
    inputs = [nhwc(case[f"rmac_in{i}"]) for i in range(4)]
    expected = np.stack([case[f"rmac_out{i}"][0, :, 0, 0] for i in range(4)])
    pool = functools.partial(regional_maxima, levels=3)
    for x, theirs in zip(inputs, expected, strict=True):
        np.testing.assert_allclose(pool(x, None)[0], theirs, **CLOSE)
    sizes = np.array([x.shape[1:3] for x in inputs])
    batch = np.full((4, *sizes.max(axis=0), inputs[0].shape[-1]), np.inf)
    for row, x in zip(batch, inputs, strict=True):
        row[: x.shape[1], : x.shape[2]] = x[0]
    np.testing.assert_allclose(jax.jit(pool)(batch, sizes), expected, **CLOSE)
