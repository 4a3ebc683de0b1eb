"""What XLA is told beyond its defaults (docs/performance.md has the measurements)."""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp

OPTIONS: Mapping[str, bool | str] = {
    # What a step replaces is copied only where a reader comes after, as by default on
    # GPUs and TPUs.
    "xla_cpu_copy_insertion_use_region_analysis": True,
    # YNNPACK for all it is taken for by default but convolutions: it needs twice as
    # long as XLA's own for those of few channels and for kernels' gradients.
    "xla_cpu_experimental_ynn_fusion_type": (
        "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
    ),
}


def training_options(platform: str) -> Mapping[str, bool | str]:
    """Returns the `compiler_options` of a training step.

    Args:
      platform: that it is compiled for: "cpu", "cuda", "tpu".

    Returns:
      Options of jax.jit; none but for a CPU, and none that this jaxlib does not know.
    """
    if platform != "cpu":
        return {}
    return {name: value for name, value in OPTIONS.items() if _known(name, value)}


@functools.cache
def _known(name: str, value: bool | str) -> bool:
    tried = jax.jit(lambda x: x + 1, compiler_options={name: value})
    try:
        tried.lower(jnp.float32(0)).compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
