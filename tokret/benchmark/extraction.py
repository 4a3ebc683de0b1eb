"""Descriptors at three scales of photos of many shapes, beside one photo at a time.

Photos are decoded already, on both sides. PyTorch runs the released loop: batches of
one, eager, float32, three scales, each photo in its own shape.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tokret.benchmark.case import Budget, Measured, measure, run_cases
from tokret.benchmark.programs import Program, compile_program, require_memory
from tokret.benchmark.rivals import import_rival
from tokret.benchmark.turns import Spread, ratios, spread, take_turns
from tokret.models.build import build_model
from tokret.models.normalisation import l2_normalise
from tokret.models.preprocessing import normalise
from tokret.models.retrieval_net import RetrievalNet
from tokret.retrieval.canvases import plan_canvases
from tokret.retrieval.extraction import RELEASED, make_describe, rescale, scaled_sizes
from tokret.runtime.compiler_options import inference_options
from tokret.shapes import Array, Float, UInt8

SCALES = RELEASED.scales
# Aspects of photos as people take them: most are 4:3, lying or standing.
ASPECTS = (4 / 3, 4 / 3, 4 / 3, 3 / 4, 3 / 2, 2 / 3, 16 / 9, 1.0)
# (trunk, dtype, photos, longest side in pixels, photos a batch)
Case = tuple[str, str, int, int, int]
CASES: dict[str, list[Case]] = {
    "cpu": [
        ("resnet50", "float32", 64, 512, 8),
        ("efficientnet_lite0", "float32", 64, 512, 8),
        ("resnet101", "float32", 64, 512, 8),
    ],
    "gpu": [
        ("resnet101", "bfloat16", 128, 1024, 16),
        ("resnet50", "bfloat16", 128, 1024, 16),
        ("resnet101", "float32", 128, 1024, 16),
        ("efficientnet_lite0", "bfloat16", 128, 1024, 16),
    ],
}


def draw_photos(count: int, longest: int) -> list[UInt8[np.ndarray, "h w 3"]]:
    """Makes noise of mixed shapes, the same every time; sides differ by single pixels.

    Args:
      count: how many.
      longest: longest side, in pixels.
    """
    rng = np.random.default_rng(0)
    photos = []
    for i in range(count):
        aspect = ASPECTS[i % len(ASPECTS)] * rng.uniform(0.99, 1.01)
        other = max(1, round(longest / max(aspect, 1 / aspect)))
        shape = (other, longest) if aspect > 1 else (longest, other)
        photos.append(rng.integers(0, 256, (*shape, 3), np.uint8))
    return photos


class Batch(NamedTuple):
    """What a call of a canvas's program takes: see `make_describe`."""

    images: UInt8[Array, "b h w 3"]
    sizes: np.ndarray
    rescaled: np.ndarray


def make_batches(
    photos: Sequence[np.ndarray], batch_size: int, canvases: int
) -> list[Batch]:
    """Pads photos to batches on canvases, on the device."""
    sizes = np.array([photo.shape[:2] for photo in photos], np.int32)
    batches = []
    for canvas in plan_canvases(sizes, canvases, batch_size):
        for part in canvas.batches(batch_size):
            images = np.zeros((batch_size, canvas.height, canvas.width, 3), np.uint8)
            true = np.ones((batch_size, 2), np.int32)
            true[: len(part.rows)] = sizes[list(part.rows)]
            for i, row in enumerate(part.rows):
                height, width = sizes[row]
                images[i, :height, :width] = photos[row]
            rescaled = np.stack([scaled_sizes(true, scale) for scale in SCALES])
            batches.append(Batch(jnp.asarray(images), true, rescaled))
    return batches


def unmasked(model: RetrievalNet) -> Any:
    """Jits `make_describe`'s program for photos that fill their canvas: no masks."""

    def describe(
        variables: Any,
        images: UInt8[Array, "b h w 3"],
        sizes: Array,
        rescaled: Array,
    ) -> Float[Array, "b d"]:
        del rescaled
        pixels = normalise(images, model.pixels)
        total: Any = 0.0
        for scale in SCALES:
            scaled = pixels if scale == 1 else rescale(pixels, sizes, scale)
            total = total + model.apply(variables, scaled, train=False)[0]
        return l2_normalise(total / len(SCALES))

    return jax.jit(describe, compiler_options=inference_options(model.dtype))


def _wait(call: Callable[..., Array], arguments: Sequence[Any], item: None) -> None:
    call(*arguments).block_until_ready()


def masks_cost(
    model: RetrievalNet, variables: Any, images: Array, turns: int
) -> Spread:
    """Returns the time of a full batch with masks, without them being 1."""
    height, width = images.shape[1:3]
    sizes = np.full((len(images), 2), (height, width), np.int32)
    rescaled = np.stack([scaled_sizes(sizes, scale) for scale in SCALES])
    arguments = (variables, images, sizes, rescaled)
    both = {"on": make_describe(model, SCALES), "off": unmasked(model)}
    times = take_turns(
        {
            name: functools.partial(_wait, call, arguments)
            for name, call in both.items()
        },
        lambda: [None],
        turns,
    )
    return spread(ratios(times["on"], times["off"]))


def run_case(
    trunk: str,
    dtype: str,
    count: int,
    longest: int,
    batch_size: int,
    turns: int,
    limit: int | None,
) -> dict[str, Any]:
    """Times one case; the facts are its arguments, and masks_cost."""
    model = build_model(trunk=trunk, head="token", dtype=dtype)
    start = jax.jit(lambda key: model.init(key, jnp.zeros((1, 64, 64, 3)), train=False))
    variables = start(jax.random.key(0))
    photos = draw_photos(count, longest)
    batches = make_batches(photos, batch_size, RELEASED.canvases)
    describe: Any = make_describe(model, SCALES)
    programs: dict[tuple[int, ...], Program] = {}
    for batch in batches:
        if batch.images.shape not in programs:
            program = compile_program(describe, variables, *batch)
            require_memory(program)
            programs[batch.images.shape] = program

    def extract() -> None:
        found = [programs[b.images.shape].call(variables, *b) for b in batches]
        jax.device_get(found)

    rival = import_rival()
    rivals = None
    if rival is not None and trunk in rival.TRUNKS:
        one = "one at a time, eager float32"
        rivals = {one: lambda: rival.extraction(trunk, photos, SCALES)}
    pixels = sum(photo.shape[0] * photo.shape[1] for photo in photos)
    canvas = sum(batch.images[..., 0].size for batch in batches)
    facts = {
        "trunk": trunk,
        "dtype": dtype,
        "photos": count,
        "longest_side": longest,
        "batch": batch_size,
        "canvases": len(programs),
        "padding": canvas / pixels - 1,
        "masks_cost": masks_cost(model, variables, batches[0].images, turns),
    }
    whole = _together([programs[batch.images.shape] for batch in batches], programs)
    return measure(facts, Measured(whole, extract, rivals, count), turns, limit)


def _together(runs: Sequence[Program], compiled: dict[Any, Program]) -> Program:
    """Sums over what runs; time is of what was compiled, memory of the largest."""

    def total(name: str) -> Any:
        values = [getattr(program, name) for program in runs]
        return None if None in values else sum(values)

    memories = [program.memory for program in runs]
    return Program(
        call=runs[0].call,
        compile_seconds=sum(program.compile_seconds for program in compiled.values()),
        products=total("products"),
        flop=total("flop"),
        bytes_accessed=total("bytes_accessed"),
        memory=None if None in memories else max(m for m in memories if m is not None),
    )


def case_name(trunk: str, dtype: str, count: int, longest: int, batch: int) -> str:
    """Names a case, as `--cases` looks for it."""
    return f"{trunk} {dtype} {count} photos of {longest} by {batch}"


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
