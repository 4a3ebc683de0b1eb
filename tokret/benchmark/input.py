"""Training's input on one core: decoding, cropping, colours, beside plain Pillow.

Both make the very same views: the same crops, flips and colour changes of the same
photos. Times are the thread's own processor time, which the neighbours on a busy
machine disturb least.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from tokret.benchmark import pillow_views
from tokret.benchmark.noise_photos import noise_photo
from tokret.benchmark.turns import Times, environment, ratios, spread, take_turns
from tokret.data import colour
from tokret.data.augmentation import Augmentation, Variation, make_view
from tokret.data.decoding import decode_fast, read_header
from tokret.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
PHOTOS = 12
VIEWS = 48  # in a turn
PILLOW_TARGET = 1.8
PARTS_TARGET = 1.15
OURS, PILLOW = "tokret", "Pillow"
AREA = "crop, INTER_AREA"  # OpenCV's own antialiased resizing


@dataclasses.dataclass(frozen=True)
class Sample:
    """A view to be made, and what every step of making it starts from.

    Attributes:
      encoded: the photo's bytes.
      vary: makes the view.
      rngs: decides the view, alike for tokret and for Pillow.
      crop: the part of the photo that is seen.
      image: the decoded photo.
      square: the crop, resized.
      changes: of all colours; the view itself may have none.
      pillow_image: the same as `image`, for Pillow.
      pillow_square: the same as `square`, for Pillow.
    """

    encoded: bytes
    vary: Augmentation
    rngs: Mapping[str, np.random.Generator]
    crop: tuple[int, int, int, int]
    image: np.ndarray
    square: np.ndarray
    changes: tuple[colour.Change, ...]
    pillow_image: Image.Image
    pillow_square: Image.Image


def _crop_and_resize(sample: Sample) -> np.ndarray:
    return make_view(sample.image, Variation(sample.crop, False, ()), sample.vary.size)


def _crop_and_average(sample: Sample) -> np.ndarray:
    top, left, height, width = sample.crop
    part = sample.image[top : top + height, left : left + width]
    side = sample.vary.size
    return np.asarray(cv2.resize(part, (side, side), interpolation=cv2.INTER_AREA))


# Each step of making a view, by tokret and by Pillow.
STEPS: dict[str, tuple[Callable[[Sample], object], Callable[[Sample], object]]] = {
    "decode": (
        lambda s: decode_fast(s.encoded, "photo"),
        lambda s: np.asarray(pillow_views.decode(s.encoded)),
    ),
    "crop, resize": (
        _crop_and_resize,
        lambda s: pillow_views.crop_and_resize(s.pillow_image, s.crop, s.vary.size),
    ),
    "colours": (
        lambda s: colour.vary(s.square.copy(), s.changes),
        lambda s: pillow_views.vary_colours(s.pillow_square, s.changes),
    ),
    "whole": (
        lambda s: s.vary.view(s.encoded, "photo", s.rngs[OURS]),
        lambda s: pillow_views.make_view(s.encoded, s.vary, s.rngs[PILLOW]),
    ),
}


def read_photos(folder: Path | None) -> list[bytes]:
    """Reads the first photos of a folder, or makes some of noise.

    Raises:
      UserError: if the folder holds none.
    """
    if folder is None:
        return [noise_photo(seed) for seed in range(PHOTOS)]
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not files:
        raise UserError(f"--photos={folder} holds no photo ({', '.join(SUFFIXES)})")
    return [file.read_bytes() for file in files[:PHOTOS]]


def make_samples(
    photos: Sequence[bytes], vary: Augmentation, views: int
) -> list[Sample]:
    """Draws views of the photos, each photo in turn."""
    images = [decode_fast(photo, f"photo {i}") for i, photo in enumerate(photos)]
    pictures = [Image.fromarray(image) for image in images]
    samples = []
    for view in range(views):
        i = view % len(photos)
        rngs = _generators(view)
        crop = vary.draw(images[i].shape[:2], rngs[OURS]).crop
        changes = vary.draw_changes(rngs[OURS])
        square = make_view(images[i], Variation(crop, False, ()), vary.size)
        samples.append(
            Sample(
                *(photos[i], vary, rngs, crop, images[i], square, changes),
                *(pictures[i], Image.fromarray(square)),
            )
        )
    return samples


def _generators(seed: int) -> dict[str, np.random.Generator]:
    return {maker: np.random.default_rng(seed) for maker in (OURS, PILLOW)}


def measure(samples: Sequence[Sample], turns: int) -> Times:
    """Times "STEP by tokret", "STEP by Pillow" and AREA, over all views, in turns."""

    def begin() -> list[Sample]:
        # The same views in every turn; training, too, is given its generators.
        return [
            dataclasses.replace(sample, rngs=_generators(seed))
            for seed, sample in enumerate(samples)
        ]

    cases = {
        f"{name} by {maker}": step
        for name, steps in STEPS.items()
        for maker, step in zip((OURS, PILLOW), steps, strict=True)
    }
    cases[AREA] = _crop_and_average
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        return take_turns(cases, begin, turns, time.thread_time)
    finally:
        cv2.setNumThreads(threads)


def summary(times: Times, views: int) -> dict[str, Any]:
    """Sums up what `measure` returns.

    Returns:
      steps: of each step, images/s by tokret and by Pillow and how many times as fast
        tokret is; targets: of each target, the figure that was to be reached, what was
        reached and whether it suffices; beside_own_parts: time of the whole, decoding
        plus tokret's own resizing being 1. Figures are [median, lowest, highest].
    """
    steps = {}
    for name in STEPS:
        ours, theirs = times[f"{name} by {OURS}"], times[f"{name} by {PILLOW}"]
        steps[name] = {
            OURS: spread([views / seconds for seconds in ours]),
            PILLOW: spread([views / seconds for seconds in theirs]),
            "ratio": spread(ratios(theirs, ours)),
        }
    decoding, whole = times[f"decode by {OURS}"], times[f"whole by {OURS}"]
    beside_parts, beside_own_parts = (
        spread(ratios(whole, [a + b for a, b in zip(decoding, parts, strict=True)]))
        for parts in (times[AREA], times[f"crop, resize by {OURS}"])
    )
    faster = steps["whole"]["ratio"]
    return {
        "steps": steps,
        "targets": {
            "times as fast as Pillow": {
                "target": PILLOW_TARGET,
                "reached": faster,
                "met": faster.median >= PILLOW_TARGET,
            },
            "time, decoding alone plus INTER_AREA alone being 1": {
                "target": PARTS_TARGET,
                "reached": beside_parts,
                "met": beside_parts.median <= PARTS_TARGET,
            },
        },
        "beside_own_parts": beside_own_parts,
    }


def report(result: dict[str, Any]) -> str:
    """Says in plain text what `run` returns."""
    photos, where = result["photos"], result["environment"]
    lines = [
        f"{result['views']} views of {photos['count']} photos ({photos['what']}, "
        f"{photos['width']} x {photos['height']}, {photos['kilobytes']} kB) at "
        f"{result['size']} px, {result['turns']} turns",
        f"one of {where['cores']} cores, {where['processor']}",
        "",
        f"{'images/s of one core':<22}{OURS:>22}{PILLOW:>22}{'times as fast':>22}",
    ]
    for name, step in result["steps"].items():
        cells = [f"{_figures(step[key], digits):>22}" for key, digits in _COLUMNS]
        lines.append(f"{name:<22}" + "".join(cells))
    faster, parts = result["targets"].values()
    lines += [
        "",
        f"target: at least {faster['target']} times Pillow: {_verdict(faster)} "
        f"{_figures(faster['reached'], 2)}",
        f"target: within {100 * (parts['target'] - 1):.0f} % of decoding plus "
        f"OpenCV's INTER_AREA: {_verdict(parts)} {_percent(parts['reached'])}",
        "of decoding plus tokret's own, faster resizing: "
        f"{_percent(result['beside_own_parts'])}",
    ]
    return "\n".join(lines)


_COLUMNS = ((OURS, 0), (PILLOW, 0), ("ratio", 2))


def _figures(figures: Sequence[float], digits: int) -> str:
    median, low, high = (f"{figure:.{digits}f}" for figure in figures)
    return f"{median} ({low} to {high})"


def _percent(figures: Sequence[float]) -> str:
    median, low, high = (f"{100 * (figure - 1):+.1f}" for figure in figures)
    return f"{median} % ({low} to {high})"


def _verdict(target: dict[str, Any]) -> str:
    return "reached" if target["met"] else "missed:"


def run(folder: Path | None, turns: int, size: int = 512) -> dict[str, Any]:
    """Times training's input.

    Args:
      folder: of photos; None takes noise of 1024 x 768 pixels.
      turns: how often every case is timed.
      size: side of the views, in pixels.

    Returns:
      What was measured, of what and where, as JSON takes it.
    """
    photos = read_photos(folder)
    samples = make_samples(photos, Augmentation(size=size), VIEWS)
    shapes = [read_header(photo, f"photo {i}").shape for i, photo in enumerate(photos)]
    height, width = (
        round(statistics.median(sides)) for sides in zip(*shapes, strict=True)
    )
    return {
        "benchmark": "input",
        "environment": environment("numpy", "opencv-python-headless", "pillow"),
        "photos": {
            "what": str(folder) if folder else "noise",
            "count": len(photos),
            "width": width,
            "height": height,
            "kilobytes": round(sum(map(len, photos)) / len(photos) / 1000),
        },
        "size": size,
        "views": len(samples),
        "turns": turns,
        **summary(measure(samples, turns), len(samples)),
    }
