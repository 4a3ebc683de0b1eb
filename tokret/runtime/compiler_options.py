"""XLA options that differ from the defaults (measured in docs/performance.md)."""

import functools
import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

Option = bool | int | str
Options = Mapping[str, Option]

_YNNPACK = "xla_cpu_experimental_ynn_fusion_type"  # what XLA uses YNNPACK for
TRAINING: Options = {
    # Copies a buffer that a step replaces only if it is read later.
    "xla_cpu_copy_insertion_use_region_analysis": True,
    # As jaxlib 0.10 by default, but without convolutions: YNNPACK needs twice as long
    # as XLA's own for those of few channels, more for kernels' gradients.
    _YNNPACK: "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE",
}
GPU: Options = {
    # cuBLAS alone, which can add a product to an existing array and compiles in half
    # the time; XLA tries dozens of kernels of its own for each product otherwise.
    "xla_gpu_enable_triton_gemm": False,
    # Products of one array by two others stay two: merged, the two must be one array.
    "xla_gpu_dot_merger_threshold_mb": 0,
}
# XLA's own form is slower only at products with a matrix's transpose, as gradients are.
INFERENCE: Options = {_YNNPACK: ""}
# For bfloat16 products YNNPACK uses instructions that XLA does not.
NARROW_INFERENCE: Options = {_YNNPACK: "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}
UNKNOWN = ("No such compile option", "is not a valid")  # as jaxlib refuses an option


def training_options(platform: str) -> dict[str, Option]:
    """Returns the `compiler_options` of a training step, as jax.jit takes them.

    None for a TPU, none unknown to this jaxlib, none that the environment's XLA_FLAGS
    names. The platform that it is compiled for is "cpu", "gpu" or "tpu".
    """
    return _allowed({"cpu": TRAINING, "gpu": GPU}.get(platform, {}), platform)


def inference_options(dtype: Any, platform: str | None = None) -> dict[str, Option]:
    """Returns those of extraction in a dtype; None is jax's default platform."""
    platform = platform or jax.default_backend()
    on_cpu = INFERENCE if jnp.dtype(dtype).itemsize >= 4 else NARROW_INFERENCE
    return _allowed({"cpu": on_cpu, "gpu": GPU}.get(platform, {}), platform)


def _allowed(options: Options, platform: str) -> dict[str, Option]:
    chosen = os.environ.get("XLA_FLAGS", "")
    return {
        name: value
        for name, value in options.items()
        if name not in chosen and _known(name, value, platform)
    }


@functools.cache
def _known(name: str, value: Option, platform: str) -> bool:
    """Whether a platform's compiler takes an option."""
    try:
        device = jax.local_devices(backend=platform)[0]
    except RuntimeError:  # not on this machine: it is compiled for another
        device = jax.local_devices()[0]
    tried = jax.jit(lambda x: x + 1, compiler_options={name: value})
    with jax.default_device(device):
        lowered = tried.lower(jax.ShapeDtypeStruct((), jnp.float32))
        try:
            lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            if any(words in str(error) for words in UNKNOWN):
                return False
            raise
    return True
