import jax
import jax.numpy as jnp
import pytest

from tokret import compiler_options


@pytest.fixture
def unknown(monkeypatch):
    monkeypatch.setattr(compiler_options, "FEWER_COPIES", {"xla_no_such_option": True})
    compiler_options._known.cache_clear()
    yield
    compiler_options._known.cache_clear()


def test_a_cpu_copies_nothing_that_is_replaced():
    options = compiler_options.replacing("cpu")

    def step(weights, momentum, gradient):
        moved = 0.9 * momentum + gradient + 1e-4 * weights
        new = (weights - gradient - 0.9 * moved, moved)
        healthy = jnp.isfinite(jnp.sum(gradient))
        return [
            jnp.where(healthy, *pair)
            for pair in zip(new, (weights, momentum), strict=True)
        ]

    arrays = [jnp.ones((64, 64)) for _ in range(3)]
    copies = []
    for chosen in ({}, options):
        jitted = jax.jit(step, donate_argnums=(0, 1), compiler_options=dict(chosen))
        copies.append(jitted.lower(*arrays).compile().as_text().count(" copy("))
    assert copies[1] < copies[0]


def test_accelerators_have_none():
    assert not compiler_options.replacing("tpu")


def test_a_jaxlib_that_does_not_know_them_does_without(unknown):
    assert not compiler_options.replacing("cpu")
