"""Descriptors of a batch that is on the device already."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tokret.benchmark.cases import Case, Settings
from tokret.benchmark.compiled_program import compile_program
from tokret.models.build import build_model
from tokret.models.retrieval_net import RetrievalNet
from tokret.runtime.compiler_options import inference_options

TRUNKS = ("resnet50", "resnet101", "efficientnet_lite0")
DTYPES = ("float32", "bfloat16")
BATCHES = (1, 8, 64)
SIDES = ((512, 512), (224, 224), (768, 1024))  # height, width
# The cases that have targets come first: the time may be over before the rest.
FIRST = {
    "cpu": [
        f"{trunk} float32 {batch}x512x512" for trunk in TRUNKS[:2] for batch in (1, 8)
    ],
    "gpu": ["resnet101 bfloat16 64x512x512", "resnet50 bfloat16 64x512x512"],
}


def initialised(trunk: str, dtype: str) -> tuple[RetrievalNet, Any]:
    """Returns Token over a trunk, and its variables at random."""
    model = build_model(trunk=trunk, head="token", dtype=dtype)
    init = jax.jit(lambda key: model.init(key, jnp.zeros((1, 64, 64, 3)), train=False))
    return model, init(jax.random.key(0))


def all_cases(settings: Settings) -> dict[str, Callable[[], Case]]:
    """Every case by name; those with targets first, then from light to heavy."""
    grid = itertools.product(TRUNKS, DTYPES, BATCHES, SIDES)
    ordered = sorted(grid, key=lambda case: case[2] * case[3][0] * case[3][1])
    name = "{0} {1} {2}x{3[0]}x{3[1]}"
    cases = {
        name.format(*case): partial(make_case, settings, *case) for case in ordered
    }
    first = FIRST.get(jax.default_backend(), [])
    return {name: cases[name] for name in (*first, *cases)}


def make_case(
    settings: Settings, trunk: str, dtype: str, batch: int, side: tuple[int, int]
) -> Case:
    """Makes one case; the facts are its arguments."""
    model, variables = initialised(trunk, dtype)
    images = np.random.default_rng(0).standard_normal((batch, *side, 3), np.float32)
    on_device = jnp.asarray(images)
    embed = jax.jit(
        lambda v, x: model.apply(v, x, train=False)[0],
        compiler_options=inference_options(dtype),
    )
    program = compile_program(embed, variables, on_device)
    return Case(
        {"trunk": trunk, "dtype": dtype, "batch": batch, "side": list(side)},
        program,
        lambda: program.call(variables, on_device).block_until_ready(),
        settings.rivals.forms("inference", trunk, dtype, images),
        images=batch,
    )
