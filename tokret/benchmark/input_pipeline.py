"""Training's input on one core: decoding, cropping, colours.

Another library makes the very same views, if one is given: the same crops, flips and
colour changes of the same photos. Times are the thread's own processor time, which
other processes on a busy machine disturb least.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from tokret.benchmark.noise_photos import noise_photo
from tokret.benchmark.timing import (
    OURS,
    Spread,
    Times,
    check_turns,
    environment,
    format_spread,
    ratios,
    spread,
    time_in_turns,
)
from tokret.data import colour
from tokret.data.augmentation import Augmentation, Variation, make_view
from tokret.data.decoding import decode_fast, read_header
from tokret.data.folders import PhotoWalk
from tokret.data.photo_formats import SUFFIXES
from tokret.data.preparing.photo_files import MAX_BYTES
from tokret.errors import UserError
from tokret.io.regular_files import read_file

PHOTOS = 12
VIEWS, SIZE = 48, 512  # in a turn; pixels
AREA = "crop, INTER_AREA"  # OpenCV's own antialiased resizing


@dataclasses.dataclass(frozen=True)
class Sample:
    """A view to be made, and the input of every step of making it."""

    encoded: bytes  # the photo's
    vary: Augmentation  # makes the view
    # decide the view, alike for tokret and for the other library
    rngs: Mapping[str, np.random.Generator]
    crop: tuple[int, int, int, int]  # the area of the photo that the view shows
    image: np.ndarray  # the decoded photo
    square: np.ndarray  # the crop, resized
    changes: tuple[colour.Change, ...]  # of all colours; the view itself may have none
    rival_image: Any = None  # `image` for the other library
    rival_square: Any = None  # `square` for the other library


class ViewMaker(NamedTuple):
    """Another library that makes training's views."""

    name: str  # the library's
    # [h, w, 3] uint8 -> the library's own image, untimed
    prepare: Callable[[np.ndarray], Any]
    # for each name in `STEPS`, what the library does
    steps: Mapping[str, Callable[[Sample], object]]


def _resize(image: np.ndarray, crop: tuple[int, int, int, int], side: int) -> Any:
    return make_view(image, Variation(crop, False, ()), side)


def _crop_and_average(sample: Sample) -> np.ndarray:
    top, left, height, width = sample.crop
    part = sample.image[top : top + height, left : left + width]
    side = sample.vary.size
    return np.asarray(cv2.resize(part, (side, side), interpolation=cv2.INTER_AREA))


STEPS: dict[str, Callable[[Sample], object]] = {
    "decode": lambda s: decode_fast(s.encoded, "photo"),
    "crop, resize": lambda s: _resize(s.image, s.crop, s.vary.size),
    "colours": lambda s: colour.vary(s.square.copy(), s.changes),
    "whole": lambda s: s.vary.view(s.encoded, "photo", s.rngs[OURS]),
}


def read_photos(folder: Path | None) -> list[bytes]:
    """Reads the first photos of a folder, which must have some, or makes noise."""
    if folder is None:
        return [noise_photo(seed) for seed in range(PHOTOS)]
    files = sorted(PhotoWalk(folder).photos())
    if not files:
        raise UserError(f"photos: {folder} has no photo ({', '.join(SUFFIXES)})")
    return [read_file(file, MAX_BYTES) for file in files[:PHOTOS]]


def make_samples(
    photos: Sequence[bytes],
    vary: Augmentation,
    views: int,
    rival: ViewMaker | None = None,
) -> list[Sample]:
    """Draws views of the photos, each photo in turn."""
    prepare = rival.prepare if rival else lambda image: None
    images = [decode_fast(photo, f"photo {i}") for i, photo in enumerate(photos)]
    prepared = [prepare(image) for image in images]

    def sample(view: int) -> Sample:
        i, rngs = view % len(photos), _generators(view, rival)
        crop = vary.draw(images[i].shape[:2], rngs[OURS]).crop
        changes = vary.draw_changes(rngs[OURS])
        square = _resize(images[i], crop, vary.size)
        drawn = (photos[i], vary, rngs, crop, images[i], square, changes)
        return Sample(*drawn, prepared[i], prepare(square))

    return list(map(sample, range(views)))


def _generators(seed: int, rival: ViewMaker | None) -> dict[str, np.random.Generator]:
    names = [OURS, rival.name] if rival else [OURS]
    return {name: np.random.default_rng(seed) for name in names}


def time_steps(
    samples: Sequence[Sample], turns: int, rival: ViewMaker | None = None
) -> Times:
    """Times "STEP by LIBRARY" and AREA, over all views, in turns."""

    def items() -> list[Sample]:
        # The same views in every turn; training, too, is given its generators.
        return [
            dataclasses.replace(sample, rngs=_generators(seed, rival))
            for seed, sample in enumerate(samples)
        ]

    makers = {OURS: STEPS, **({rival.name: rival.steps} if rival else {})}
    cases = {
        f"{name} by {m}": steps[name] for name in STEPS for m, steps in makers.items()
    }
    cases[AREA] = _crop_and_average
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        return time_in_turns(cases, items, turns, time.thread_time)
    finally:
        cv2.setNumThreads(threads)


def summary(times: Times, views: int, rival: str | None = None) -> dict[str, Any]:
    """Sums up what `time_steps` returns.

    Returns:
      steps: of each step, images/s by tokret, and those by the other library and how
        many times as fast tokret is; beside_inter_area and beside_own_parts: time of
        the whole, decoding plus INTER_AREA, or tokret's own resizing, being 1. Figures
        are [median, lowest, highest].
    """
    steps = {}
    for name in STEPS:
        by = {m: times[f"{name} by {m}"] for m in (OURS, rival) if m}
        steps[name] = {m: spread([views / s for s in taken]) for m, taken in by.items()}
        if rival:
            steps[name]["ratio"] = spread(ratios(by[rival], by[OURS]))
    decoding, whole = times[f"decode by {OURS}"], times[f"whole by {OURS}"]

    def beside(resizing: list[float]) -> Spread:
        parts = [a + b for a, b in zip(decoding, resizing, strict=True)]
        return spread(ratios(whole, parts))

    return {
        "steps": steps,
        "beside_inter_area": beside(times[AREA]),
        "beside_own_parts": beside(times[f"crop, resize by {OURS}"]),
    }


def report(result: dict[str, Any]) -> str:
    """Formats what `run` returns."""
    photos, where = result["photos"], result["environment"]
    columns = list(result["steps"]["whole"])
    titles = ["times as fast" if column == "ratio" else column for column in columns]
    lines = [
        f"{result['views']} views of {photos['count']} photos ({photos['what']}, "
        f"{photos['width']} x {photos['height']}, {photos['kilobytes']} kB) at "
        f"{result['size']} px, {result['turns']} turns",
        f"one of {where['cores']} cores, {where['processor']}",
        "",
        f"{'images/s of one core':<22}" + "".join(f"{title:>22}" for title in titles),
    ]
    for name, step in result["steps"].items():
        cells = [format_spread(step[c], 2 if c == "ratio" else 0) for c in columns]
        lines.append(f"{name:<22}" + "".join(f"{cell:>22}" for cell in cells))
    names = ("beside_inter_area", "beside_own_parts")
    parts = ("OpenCV's INTER_AREA", "tokret's own resizing")
    for name, part in zip(names, parts, strict=True):
        median, low, high = (f"{100 * (value - 1):+.1f}" for value in result[name])
        lines.append(
            f"whole, beside decoding plus {part}: {median} % ({low} to {high})"
        )
    return "\n".join(lines)


def run(folder: Path | None, turns: int, rival: ViewMaker | None) -> dict[str, Any]:
    """Times training's input with a folder's photos, or noise of 1024 x 768 pixels."""
    turns, photos = check_turns(turns), read_photos(folder)
    samples = make_samples(photos, Augmentation(size=SIZE), VIEWS, rival)
    shapes = [read_header(photo, f"photo {i}").shape for i, photo in enumerate(photos)]
    height, width = (
        round(statistics.median(sides)) for sides in zip(*shapes, strict=True)
    )
    times = time_steps(samples, turns, rival)
    return {
        "benchmark": "input",
        "environment": environment("numpy", "opencv-python-headless", "pillow"),
        "photos": {
            **{"what": str(folder) if folder else "noise", "count": len(photos)},
            **{"width": width, "height": height},
            "kilobytes": round(sum(map(len, photos)) / len(photos) / 1000),
        },
        **{"size": SIZE, "views": len(samples), "turns": turns},
        **summary(times, len(samples), rival.name if rival else None),
    }
