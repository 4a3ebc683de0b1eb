"""Bytes that a TPU moves in a training step, beside the same model in plain Flax.

Both steps are compiled for a pod; the compiler counts. A step of the released recipe is
bound by memory, so that fewer bytes take less time.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp

from benchmarks.plain_flax import plain_token
from tokret import command_line
from tokret.benchmark.plan import CLASSES, PACKAGES, PHOTOS
from tokret.benchmark.pod_programs import training
from tokret.benchmark.pods import TooLargeError, compile_for_pod, make_pod
from tokret.benchmark.speed import environment_line, giga
from tokret.benchmark.timing import environment
from tokret.config.parsing import parse
from tokret.configs import gldv2_r101
from tokret.errors import UserError
from tokret.models.retrieval_net import RetrievalNet

RECIPE = gldv2_r101  # in bfloat16, at 512 px
BLOCKS = (3, 4, 23, 3)  # of its trunk
TOPOLOGY, IMAGES = "v5e:4x4", 64  # a chip


def run() -> dict[str, Any]:
    """Compiles both steps, which takes some minutes each.

    Returns:
      Of "ours" and "plain": bytes and FLOP an image, and the bytes of a chip's memory;
      "ratio", of their bytes, plain being 1, as [median, lowest, highest].

    Raises:
      UserError: if libtpu is missing or in use, or a step does not fit.
    """
    command_line.quieten()
    ours, plain = _by_image(None), _by_image(plain_token(BLOCKS, jnp.bfloat16))
    return {
        "benchmark": "bytes",
        "environment": {**environment(*PACKAGES), "device": f"compiled for {TOPOLOGY}"},
        **{"config": RECIPE.__name__, "topology": TOPOLOGY, "images_a_chip": IMAGES},
        **{"ours": ours, "plain": plain},
        "ratio": [ours["bytes"] / plain["bytes"]] * 3,
    }


def _by_image(model: RetrievalNet | None) -> dict[str, float]:
    """Compiles the step of the recipe's model, or of another."""
    pod = make_pod(TOPOLOGY)
    config = parse(RECIPE.get_config().to_dict())
    config = dataclasses.replace(config, batch_size=IMAGES * len(pod.devices))
    work = training(config, pod, classes=CLASSES, photos=PHOTOS, model=model)
    try:
        cost = compile_for_pod(work.lowered)
    except TooLargeError as error:
        raise UserError(f"the step for {TOPOLOGY} does not fit: {error}") from error
    each = {"bytes": cost.accessed / IMAGES, "flop": cost.flop / IMAGES}
    return each | {"memory": float(cost.arguments + cost.temporaries)}


def report(result: dict[str, Any]) -> str:
    """Formats what `run` returns."""
    lines = [environment_line(result["environment"])]
    for name, cost in (("tokret's", result["ours"]), ("plain", result["plain"])):
        lines.append(
            f"{name} step for {result['topology']}: {giga(cost['bytes'])} GB and "
            f"{giga(cost['flop'])} GFLOP an image, {giga(cost['memory'])} GB a chip"
        )
    return "\n".join(lines)
