import jax
import jax.numpy as jnp
import pytest

from tokret.models.kernels.matmul import project
from tokret.runtime import compiler_options
from tokret.runtime.compiler_options import inference_options, training_options
from tokret.runtime.processor import multiplies_bfloat16


def compiled(function, *arguments, options, donate=()):
    jitted = jax.jit(function, donate_argnums=donate, compiler_options=options)
    return jitted.lower(*arguments).compile().as_text()


def test_a_cpu_copies_less_of_what_is_replaced():
    def step(weights, momentum, gradient):
        moved = 0.9 * momentum + gradient + 1e-4 * weights
        new = (weights - gradient - 0.9 * moved, moved)
        healthy = jnp.isfinite(jnp.sum(gradient))
        return [
            jnp.where(healthy, *pair)
            for pair in zip(new, (weights, momentum), strict=True)
        ]

    arrays = [jnp.ones((64, 64)) for _ in range(3)]
    copies = [
        compiled(step, *arrays, options=options, donate=(0, 1)).count(" copy(")
        for options in ({}, training_options("cpu"))
    ]
    assert copies[1] < copies[0]


@pytest.mark.parametrize(
    ("options", "dtype", "products"),
    [
        (lambda: training_options("cpu"), jnp.float32, 0),
        (lambda: inference_options(jnp.float32, "cpu"), jnp.float32, 1),
        pytest.param(
            *(lambda: inference_options(jnp.bfloat16, "cpu"), jnp.bfloat16, 0),
            marks=pytest.mark.skipif(
                not multiplies_bfloat16(), reason="no units for bfloat16"
            ),
        ),
    ],
)
def test_convolutions_are_xlas_own_products_in_float32_inference_alone(
    options, dtype, products
):
    def layer(x, kernel, matrix):
        y = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return project(y, matrix)

    shapes = ((4, 32, 32, 64), (3, 3, 64, 64), (64, 64))
    arrays = [jnp.ones(shape, dtype) for shape in shapes]
    program = compiled(layer, *arrays, options=options())
    entry = program[program.index("ENTRY") :]
    assert entry.count(" convolution(") == 1
    assert entry.count(" dot(") == products


def test_a_tpu_has_none():
    assert not training_options("tpu") and not inference_options(jnp.float32, "tpu")


def test_a_gpu_s_are_known_where_there_is_none(monkeypatch):
    """The CPU's compiler reads the same options, and refuses others."""
    assert training_options("gpu") == compiler_options.GPU
    assert inference_options(jnp.bfloat16, "gpu") == compiler_options.GPU
    monkeypatch.setattr(compiler_options, "GPU", {"xla_gpu_no_such": 0})
    assert not training_options("gpu")


def test_the_environment_takes_precedence(monkeypatch):
    first, second = compiler_options.TRAINING
    monkeypatch.setenv("XLA_FLAGS", f"--xla_some_flag=1 --{second}=")
    assert list(training_options("cpu")) == [first]
    assert not inference_options(jnp.float32, "cpu")


def test_another_failure_is_not_taken_for_an_unknown_option(monkeypatch):
    def fail(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: no memory")

    monkeypatch.setattr(jax.stages.Lowered, "compile", fail)
    compiler_options._known.cache_clear()
    with pytest.raises(jax.errors.JaxRuntimeError, match="no memory"):
        training_options("cpu")


@pytest.mark.parametrize("changed", [("no_such", True), (None, "LIBRARY_NO_SUCH")])
def test_what_a_jaxlib_does_not_know_is_left_out(monkeypatch, changed):
    first, second = compiler_options.TRAINING
    name, value = changed
    options = {first: True, name or second: value}
    monkeypatch.setattr(compiler_options, "TRAINING", options)
    assert dict(training_options("cpu")) == {first: True}
