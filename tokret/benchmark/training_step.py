"""A training step of a batch that is on the device already, beside PyTorch.

The step is that of train.py: images as bytes, the released SGD, ArcFace, the norms that
are reported, the guard against updates without numbers.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from tokret.benchmark.case import Budget, Measured, measure, run_cases
from tokret.benchmark.programs import compile_program, require_memory
from tokret.benchmark.rivals import import_rival
from tokret.models.build import build_model
from tokret.training.optimiser import Schedule, make_optimiser
from tokret.training.sharding import make_mesh, padded_classes
from tokret.training.state import make_classifiers
from tokret.training.step import CompiledSteps, compile_steps
from tokret.training.updates import Updating

GLDV2 = 81_313  # classes
FEW = 1_000
# (trunk, dtype, batch, side in pixels, classes), the targets' first.
Case = tuple[str, str, int, int, int]
CASES: dict[str, list[Case]] = {
    "cpu": [
        ("tiny", "float32", 8, 128, FEW),
        ("tiny", "float32", 8, 224, FEW),
        ("resnet50", "float32", 8, 128, FEW),
        ("resnet50", "float32", 8, 224, FEW),
        ("efficientnet_lite0", "float32", 8, 224, FEW),
        ("resnet50", "float32", 4, 512, GLDV2),
        ("resnet101", "float32", 4, 512, GLDV2),
    ],
    "gpu": [
        *(("resnet101", "bfloat16", batch, 512, GLDV2) for batch in (64, 128, 32, 256)),
        *(("resnet50", "bfloat16", batch, 512, GLDV2) for batch in (128, 64)),
        ("efficientnet_lite0", "bfloat16", 128, 512, GLDV2),
        ("resnet101", "float32", 64, 512, GLDV2),
        ("resnet101", "bfloat16", 8, 512, GLDV2),
    ],
}

# Steps that are begun without waiting for each, as training does: an accelerator works
# on one while the host prepares the next.
STEPS = {"gpu": 4, "tpu": 4}


def case_name(trunk: str, dtype: str, batch: int, side: int, classes: int) -> str:
    """Names a case, as `--cases` looks for it."""
    return f"{trunk} {dtype} {batch}x{side}x{side} {classes} classes"


def make_step(trunk: str, dtype: str, classes: int) -> CompiledSteps:
    """Makes the programs of a run with the released recipe on one device."""
    model = build_model(trunk=trunk, head="token", dtype=dtype)
    mesh = make_mesh(jax.devices()[:1], data=1, model=1)
    rows = padded_classes(classes, mesh)
    classifiers = make_classifiers(model, classes, rows, scale=32.0, margin=0.2)
    schedule = Schedule(
        base_lr=0.01,
        reference_batch_size=80,
        warmup_init_lr=1e-4,
        warmup_steps=5,
        steps=10**6,
        decay="cosine",
    )
    optimiser = make_optimiser(schedule, name="sgd", momentum=0.9, weight_decay=1e-4)
    updating = Updating(grad_accum_steps=1, ema_decay=0.0, max_nonfinite_steps=10)
    return compile_steps(model, classifiers, optimiser, mesh, 0, updating)


def run_case(
    trunk: str,
    dtype: str,
    batch: int,
    side: int,
    classes: int,
    turns: int,
    limit: int | None,
) -> dict[str, Any]:
    """Times one case; the facts are its arguments."""
    programs = make_step(trunk, dtype, classes)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch, side, side, 3), np.uint8)
    labels = rng.integers(0, classes, batch, np.int32)
    seen, wanted = jax.device_put((images, labels), jax.devices()[0])
    program = compile_program(programs.train, programs.abstract, seen, wanted)
    require_memory(program)
    state, steps = programs.new_state(), STEPS.get(jax.default_backend(), 1)

    def step() -> None:
        nonlocal state
        for _ in range(steps):
            state, metrics = program.call(state, seen, wanted)
        jax.block_until_ready((state, metrics))

    rival = import_rival()
    rivals = None
    if rival is not None and trunk in rival.TRUNKS:
        rivals = {
            name: functools.partial(
                rival.training, trunk, form, images, labels, classes, steps
            )
            for name, form in rival.FORMS[dtype].items()
        }
    facts = {
        "trunk": trunk,
        "dtype": dtype,
        "batch": batch,
        "side": [side, side],
        "classes": classes,
    }
    measured = Measured(program, step, rivals, batch, steps)
    return measure(facts, measured, turns, limit)


def all_cases(turns: int, limit: int | None) -> dict[str, Callable[[], dict[str, Any]]]:
    """Every case by name, those of this kind of device."""
    cases = CASES.get(jax.default_backend(), CASES["gpu"])
    return {
        case_name(*case): functools.partial(run_case, *case, turns, limit)
        for case in cases
    }


def run(
    turns: int, wanted: str, budget: Budget, limit: int | None
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Times the cases that are wanted, as long as the budget lasts."""
    return run_cases(all_cases(turns, limit), wanted, budget)
