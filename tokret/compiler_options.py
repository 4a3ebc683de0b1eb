"""What XLA is told beyond its defaults (docs/performance.md has the measurements)."""

import functools
import os
from collections.abc import Mapping

import jax
import jax.numpy as jnp

Options = Mapping[str, bool | str]

_YNNPACK = "xla_cpu_experimental_ynn_fusion_type"  # what XLA takes YNNPACK for
TRAINING: Options = {
    # Copies what a step replaces only where a reader comes after.
    "xla_cpu_copy_insertion_use_region_analysis": True,
    # As jaxlib 0.10 by default, but without convolutions: YNNPACK needs twice as long
    # as XLA's own for those of few channels, more for kernels' gradients.
    _YNNPACK: "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE",
}
# XLA's own form is slower only at products with a matrix's transpose, as gradients are.
INFERENCE: Options = {_YNNPACK: ""}
UNKNOWN = ("No such compile option", "is not a valid")  # as jaxlib refuses an option


def training_options(platform: str) -> dict[str, bool | str]:
    """Returns the `compiler_options` of a training step.

    Args:
      platform: that it is compiled for: "cpu", "cuda", "tpu".

    Returns:
      Options of jax.jit; none but for a CPU, none that this jaxlib does not know, and
      none that the environment's XLA_FLAGS names.
    """
    return _allowed(TRAINING, platform)


def inference_options(platform: str | None = None) -> dict[str, bool | str]:
    """Returns the `compiler_options` of what describes images, as `training_options`.

    Args:
      platform: that it is compiled for; None for that of jax's default backend.
    """
    return _allowed(INFERENCE, platform or jax.default_backend())


def _allowed(options: Options, platform: str) -> dict[str, bool | str]:
    if platform != "cpu":
        return {}
    chosen = os.environ.get("XLA_FLAGS", "")
    return {
        name: value
        for name, value in options.items()
        if name not in chosen and _known(name, value)
    }


@functools.cache
def _known(name: str, value: bool | str) -> bool:
    """Whether the CPU's compiler takes an option."""
    tried = jax.jit(lambda x: x + 1, compiler_options={name: value})
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        lowered = tried.lower(jax.ShapeDtypeStruct((), jnp.float32))
        try:
            lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            if any(words in str(error) for words in UNKNOWN):
                return False
            raise
    return True
