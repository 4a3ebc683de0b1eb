"""Descriptors of a batch that is on the device already, beside PyTorch."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tokret.benchmark.case import Budget, Measured, measure, run_cases
from tokret.benchmark.programs import compile_program, require_memory
from tokret.benchmark.rivals import import_rival
from tokret.models.build import build_model
from tokret.runtime.compiler_options import inference_options

TRUNKS = ("resnet50", "resnet101", "efficientnet_lite0")
DTYPES = ("float32", "bfloat16")
BATCHES = (1, 8, 64)
SIDES = ((512, 512), (224, 224), (768, 1024))  # height, width
# What the targets are about comes first: a budget may end before the rest.
FIRST = {
    "cpu": [
        f"{trunk} float32 {batch}x512x512" for trunk in TRUNKS[:2] for batch in (1, 8)
    ],
    "gpu": ["resnet101 bfloat16 64x512x512", "resnet50 bfloat16 64x512x512"],
}


def case_name(trunk: str, dtype: str, batch: int, side: tuple[int, int]) -> str:
    """Names a case, as `--cases` looks for it."""
    return f"{trunk} {dtype} {batch}x{side[0]}x{side[1]}"


def all_cases(turns: int, limit: int | None) -> dict[str, Callable[[], dict[str, Any]]]:
    """Every case by name; the targets' first, then from light to heavy."""
    grid = list(itertools.product(TRUNKS, DTYPES, BATCHES, SIDES))
    grid.sort(key=lambda case: case[2] * case[3][0] * case[3][1])
    cases = {
        case_name(*case): functools.partial(run_case, *case, turns, limit)
        for case in grid
    }
    first = FIRST.get(jax.default_backend(), [])
    return {name: cases[name] for name in (*first, *cases)}


def run_case(
    trunk: str,
    dtype: str,
    batch: int,
    side: tuple[int, int],
    turns: int,
    limit: int | None,
) -> dict[str, Any]:
    """Times one case; the facts are its arguments."""
    model = build_model(trunk=trunk, head="token", dtype=dtype)
    start = jax.jit(lambda key: model.init(key, jnp.zeros((1, 64, 64, 3)), train=False))
    variables = start(jax.random.key(0))
    images = np.random.default_rng(0).standard_normal((batch, *side, 3), np.float32)
    seen = jnp.asarray(images)
    describe = jax.jit(
        lambda v, x: model.apply(v, x, train=False)[0],
        compiler_options=inference_options(dtype),
    )
    program = compile_program(describe, variables, seen)
    require_memory(program)
    rival = import_rival()
    rivals = None
    if rival is not None and trunk in rival.TRUNKS:
        rivals = {
            name: functools.partial(rival.inference, trunk, form, images)
            for name, form in rival.FORMS[dtype].items()
        }
    measured = Measured(
        program,
        lambda: program.call(variables, seen).block_until_ready(),
        rivals,
        batch,
    )
    facts = {"trunk": trunk, "dtype": dtype, "batch": batch, "side": list(side)}
    return measure(facts, measured, turns, limit)


def run(
    turns: int, wanted: str, budget: Budget, limit: int | None
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Times the cases that are wanted, as long as the budget lasts."""
    return run_cases(all_cases(turns, limit), wanted, budget)
