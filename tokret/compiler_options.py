"""What XLA is told beyond its defaults."""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp

# What a program replaces is copied only where a reader comes after, as by default on
# GPUs and TPUs (docs/performance.md).
FEWER_COPIES = {"xla_cpu_copy_insertion_use_region_analysis": True}


def replacing(platform: str) -> Mapping[str, bool]:
    """The options for a program that replaces its arguments, as a training step does.

    Args:
      platform: that it is compiled for: "cpu", "cuda", "tpu".

    Returns:
      `compiler_options` of jax.jit; none where this jaxlib does not know them.
    """
    return _known() if platform == "cpu" else {}


@functools.cache
def _known() -> Mapping[str, bool]:
    tried = jax.jit(lambda x: x + 1, compiler_options=FEWER_COPIES)
    try:
        tried.lower(jnp.float32(0)).compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return FEWER_COPIES
