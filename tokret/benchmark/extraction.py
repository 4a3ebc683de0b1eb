"""Descriptors at three scales of photos of many shapes, which are decoded already."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tokret.benchmark.cases import Case, Settings
from tokret.benchmark.compiled_program import CompiledProgram, compile_program
from tokret.benchmark.inference import initialised
from tokret.benchmark.timing import Spread, ratios, spread, time_calls
from tokret.config.tree import ExtractionConfig
from tokret.models.layers import l2_normalise
from tokret.models.preprocessing import normalise
from tokret.models.retrieval_net import RetrievalNet
from tokret.retrieval.canvases import plan_canvases
from tokret.retrieval.embedding import make_embed_fn, rescale, scaled_sizes
from tokret.runtime.compiler_options import inference_options
from tokret.shapes import Array, Float, UInt8

RELEASED = ExtractionConfig()
SCALES = RELEASED.scales
# Aspect ratios of people's photos: most are 4:3, landscape or portrait.
ASPECTS = (4 / 3, 4 / 3, 4 / 3, 3 / 4, 3 / 2, 2 / 3, 16 / 9, 1.0)
# (trunk, dtype, photos, longest side in pixels, photos a batch)
CASES: dict[str, list[tuple[str, str, int, int, int]]] = {
    "cpu": [
        (trunk, "float32", 64, 512, 8)
        for trunk in ("resnet50", "efficientnet_lite0", "resnet101")
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

    The longest side is of so many pixels.
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
    """The arguments of a canvas's program, see `make_embed_fn`."""

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
            rescaled = scaled_sizes(true, SCALES)
            batches.append(Batch(jnp.asarray(images), true, rescaled))
    return batches


def unmasked(model: RetrievalNet) -> Any:
    """Jits `make_embed_fn`'s program for photos that fill their canvas: no masks."""

    def embed(
        variables: Any, images: UInt8[Array, "b h w 3"], sizes: Array, rescaled: Array
    ) -> Float[Array, "b d"]:
        del rescaled
        pixels = normalise(images, model.pixels)
        total: Any = 0.0
        for scale in SCALES:
            scaled = pixels if scale == 1 else rescale(pixels, sizes, scale)
            total = total + model.apply(variables, scaled, train=False)[0]
        return l2_normalise(total / len(SCALES))

    return jax.jit(embed, compiler_options=inference_options(model.dtype))


def masks_cost(
    model: RetrievalNet, variables: Any, images: Array, turns: int
) -> Spread:
    """Returns the time of a full batch with masks, without them being 1."""
    sizes = np.full((len(images), 2), images.shape[1:3], np.int32)
    arguments = (variables, images, sizes, scaled_sizes(sizes, SCALES))
    with_masks, without = make_embed_fn(model, SCALES), unmasked(model)
    calls: dict[str, Any] = {
        "on": lambda: with_masks(*arguments).block_until_ready(),
        "off": lambda: without(*arguments).block_until_ready(),
    }
    times = time_calls(calls, turns)
    return spread(ratios(times["on"], times["off"]))


def make_case(
    settings: Settings,
    trunk: str,
    dtype: str,
    count: int,
    longest: int,
    batch_size: int,
) -> Case:
    """Makes one case; the facts are its arguments, and masks_cost."""
    model, variables = initialised(trunk, dtype)
    photos = draw_photos(count, longest)
    batches = make_batches(photos, batch_size, RELEASED.canvases)
    embed: Any = make_embed_fn(model, SCALES)
    programs = {
        shape: compile_program(embed, variables, *batch)
        for shape, batch in {b.images.shape: b for b in batches}.items()
    }
    runs = [programs[batch.images.shape] for batch in batches]

    def extract() -> None:
        pairs = zip(runs, batches, strict=True)
        jax.device_get([program.call(variables, *batch) for program, batch in pairs])

    pixels = sum(photo.shape[0] * photo.shape[1] for photo in photos)
    canvas = sum(batch.images[..., 0].size for batch in batches)
    facts = {
        **{"trunk": trunk, "dtype": dtype, "photos": count, "longest_side": longest},
        **{"batch": batch_size, "canvases": len(programs)},
        "padding": canvas / pixels - 1,
        "masks_cost": masks_cost(model, variables, batches[0].images, settings.turns),
    }
    rivals = settings.rivals.forms("extraction", trunk, dtype, photos, SCALES)
    return Case(facts, _total(runs, list(programs.values())), extract, rivals, count)


def _total(
    runs: Sequence[CompiledProgram], compiled: Sequence[CompiledProgram]
) -> CompiledProgram:
    """Adds up work of all runs, and time to compile; memory is the largest."""
    # By field: the values of all programs; none if one is unknown.
    columns = zip(CompiledProgram._fields, zip(*runs, strict=True), strict=True)
    values: dict[str, Any] = {n: None if None in each else each for n, each in columns}
    summed = ("products", "flop", "bytes_accessed")
    total: dict[str, Any] = {
        name: values[name] and sum(values[name]) for name in summed
    }
    return CompiledProgram(
        call=runs[0].call,
        compile_seconds=sum(program.compile_seconds for program in compiled),
        memory=values["memory"] and max(values["memory"]),
        **total,
    )


def all_cases(settings: Settings) -> dict[str, Callable[[], Case]]:
    """Every case by name, those of this kind of device."""
    cases = CASES.get(jax.default_backend(), CASES["gpu"])
    name = "{} {} {} photos of {} by {}"
    return {name.format(*case): partial(make_case, settings, *case) for case in cases}
