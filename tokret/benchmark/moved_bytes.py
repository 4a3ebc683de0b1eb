"""Bytes that a TPU moves in a training step, beside the same model in plain Flax.

Both steps are compiled for a pod that is not there; the compiler counts. A step of the
released recipe is bound by memory, so that fewer bytes are less time.
"""

from typing import Any

import jax.numpy as jnp

from configs import gldv2_r101
from tokret import command_line, config_files
from tokret.benchmark.plain_token import plain_token
from tokret.benchmark.plan import CLASSES, PACKAGES, PHOTOS
from tokret.benchmark.pod_programs import training
from tokret.benchmark.pods import (
    Compiled,
    TooLargeError,
    compile_for_pod,
    find_pod,
)
from tokret.benchmark.turns import environment
from tokret.errors import UserError
from tokret.models.retrieval_net import RetrievalNet

RECIPE = gldv2_r101  # in bfloat16, at 512 px
BLOCKS = (3, 4, 23, 3)  # of its trunk
TOPOLOGY, IMAGES = "v5e:4x4", 64  # a chip


def run() -> dict[str, Any]:
    """Compiles both steps, which takes some minutes each.

    Returns:
      Of "ours" and "plain": bytes and floating-point operations an image, and the bytes
      of a chip's memory that are needed; "ratio", of their bytes, plain being 1, as
      [median, lowest, highest], all the same.

    Raises:
      UserError: if there is no libtpu that is free to be used, or a step does not fit.
    """
    command_line.quieten()
    found = {
        "ours": _counted(_compiled(None)),
        "plain": _counted(_compiled(plain_token(BLOCKS, jnp.bfloat16))),
    }
    ratio = found["ours"]["bytes"] / found["plain"]["bytes"]
    return {
        "benchmark": "bytes",
        "environment": {**environment(*PACKAGES), "device": f"compiled for {TOPOLOGY}"},
        "config": RECIPE.__name__,
        "topology": TOPOLOGY,
        "images_a_chip": IMAGES,
        **found,
        "ratio": [ratio] * 3,
    }


def _compiled(model: RetrievalNet | None) -> Compiled:
    pod = find_pod(TOPOLOGY)
    config = config_files.plain(RECIPE.get_config())
    config = {**config, "batch_size": IMAGES * len(pod.devices)}
    work = training(config, pod, classes=CLASSES, photos=PHOTOS, model=model)
    try:
        return compile_for_pod(work.parts[0].lowered)
    except TooLargeError as error:
        raise UserError(f"the step for {TOPOLOGY} does not fit: {error}") from error


def _counted(compiled: Compiled) -> dict[str, float]:
    return {
        "bytes": compiled.accessed / IMAGES,
        "flop": compiled.flop / IMAGES,
        "memory": float(compiled.arguments + compiled.temporaries),
    }
