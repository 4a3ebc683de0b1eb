"""A training step of a batch that is on the device already.

The step is that of train.py: images as bytes, the released SGD, ArcFace, the reported
norms, the guard against non-finite updates.
"""

from collections.abc import Callable
from functools import partial

import jax
import numpy as np

from tokret.benchmark.cases import Case, Settings
from tokret.benchmark.compiled_program import compile_program
from tokret.models.build import build_model
from tokret.training.optimiser import Schedule, make_optimiser
from tokret.training.sharding import make_mesh, padded_classes
from tokret.training.state import make_classifiers
from tokret.training.step import CompiledSteps, compile_steps

GLDV2 = 81_313  # classes
FEW = 1_000
# (trunk, dtype, batch, side in pixels, classes), those with targets first.
CASES: dict[str, list[tuple[str, str, int, int, int]]] = {
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

# Steps that are started without waiting for each, as training does: an accelerator
# works on one while the host prepares the next.
STEPS = {"gpu": 4, "tpu": 4}


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
    return compile_steps(model, classifiers, optimiser, mesh, seed=0)


def make_case(
    settings: Settings, trunk: str, dtype: str, batch: int, side: int, classes: int
) -> Case:
    """Makes one case; the facts are its arguments."""
    programs = make_step(trunk, dtype, classes)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch, side, side, 3), np.uint8)
    labels = rng.integers(0, classes, batch, np.int32)
    inputs = jax.device_put((images, labels), jax.devices()[0])
    program = compile_program(programs.train, programs.abstract, *inputs)
    state, steps = programs.new_state(), STEPS.get(jax.default_backend(), 1)

    def step() -> None:
        nonlocal state
        for _ in range(steps):
            state, metrics = program.call(state, *inputs)
        jax.block_until_ready((state, metrics))

    facts = {"trunk": trunk, "dtype": dtype, "batch": batch, "side": [side, side]}
    work = (images, labels, classes, steps)
    rivals = settings.rivals.forms("training", trunk, dtype, *work)
    return Case({**facts, "classes": classes}, program, step, rivals, batch, steps)


def all_cases(settings: Settings) -> dict[str, Callable[[], Case]]:
    """Every case by name, those of this kind of device."""
    cases = CASES.get(jax.default_backend(), CASES["gpu"])
    name = "{0} {1} {2}x{3}x{3} {4} classes"
    return {name.format(*case): partial(make_case, settings, *case) for case in cases}
