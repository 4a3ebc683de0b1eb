"""Views of any shape -> descriptors, in full batches, exactly.

Views are padded at the right and the bottom to a few canvases and their true sizes
travel along; the model masks what lies outside. A descriptor is the same as if its
view were alone, and an evaluation compiles one program a canvas.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tokret.configuration import within
from tokret.data.views import View
from tokret.errors import UserError
from tokret.models.images import normalise
from tokret.models.normalisation import l2_normalise
from tokret.models.retrieval_net import RetrievalNet
from tokret.shapes import Array, Float, Int, UInt8

Describe = Callable[..., jax.Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Extraction:
    """How descriptors are made; `config.evaluation`.

    Attributes:
      longest_side: of a database photo, in pixels; larger ones are shrunk.
      scales: factors of the sides; each gives a descriptor, and their normalised mean
        is the result.
      batch_size: views a batch.
      canvases: most padded shapes; each costs a compilation.
    """

    longest_side: int
    scales: Sequence[float]
    batch_size: int
    canvases: int

    def __post_init__(self) -> None:
        for field in ("longest_side", "batch_size", "canvases"):
            within(f"evaluation.{field}", getattr(self, field), 1)
        if not isinstance(self.scales, Sequence) or not self.scales:
            raise UserError(
                f"config.evaluation.scales is {self.scales!r}; it must be numbers, "
                "such as (1.0,)"
            )
        for scale in self.scales:
            if not isinstance(scale, (int, float)):
                raise UserError(
                    f"config.evaluation.scales holds {scale!r}; it must hold numbers"
                )
            within("evaluation.scales", float(scale), 0.05, 20)


# As the authors evaluate (their test.py).
RELEASED = Extraction(
    longest_side=1024, scales=(1.0, 2**0.5, 2**-0.5), batch_size=8, canvases=8
)


def interpolation(
    sizes: Int[Array, " b"], inputs: int, outputs: int, scale: float
) -> Float[Array, "b o i"]:
    """Makes the matrices that rescale one axis bilinearly, one an image.

    Half-pixel centres, no antialiasing, sampling step exactly 1 / scale, edges
    repeated: PyTorch's `interpolate(scale_factor=scale)`, within each true size.

    Args:
      sizes: true sides along the axis.
      inputs: the canvas's side.
      outputs: the canvas's side after rescaling.
      scale: factor of the sides.
    """
    position = jnp.maximum((jnp.arange(outputs) + 0.5) / scale - 0.5, 0.0)
    last = sizes[:, None] - 1  # [b, 1]
    low = jnp.minimum(jnp.floor(position).astype(jnp.int32), last)  # [b, o]
    high = jnp.minimum(low + 1, last)
    share = position - jnp.floor(position)  # [o]
    columns = jnp.arange(inputs)
    at_low = (low[..., None] == columns) * (1 - share)[None, :, None]
    at_high = (high[..., None] == columns) * share[None, :, None]
    return at_low + at_high


def rescale(
    images: Float[Array, "b h w 3"], sizes: Int[Array, "b 2"], scale: float
) -> Float[Array, "b h2 w2 3"]:
    """Rescales every image of a padded batch within its true size."""
    height, width = images.shape[1:3]
    rows = interpolation(sizes[:, 0], height, int(height * scale), scale)
    columns = interpolation(sizes[:, 1], width, int(width * scale), scale)
    exact = jax.lax.Precision.HIGHEST
    rows, columns = rows.astype(images.dtype), columns.astype(images.dtype)
    images = jnp.einsum("boh,bhwc->bowc", rows, images, precision=exact)
    return jnp.einsum("bpw,bowc->bopc", columns, images, precision=exact)


def scaled_sizes(sizes: Int[np.ndarray, "b 2"], scale: float) -> np.ndarray:
    """Returns true sizes after rescaling: floor(side * scale), in double precision."""
    return np.maximum(np.floor(sizes * scale), 1).astype(np.int32)


def make_describe(model: RetrievalNet, scales: Sequence[float]) -> Describe:
    """Jits multi-scale description.

    Args:
      model: images to (descriptors, intermediates).
      scales: factors of the sides; each gives a descriptor, and their normalised mean
        is the result.

    Returns:
      A function of (variables, images [b, h, w, 3] uint8, sizes [b, 2] of them, sizes
      [scales, b, 2] after rescaling, which only double precision rounds as PyTorch
      does) to descriptors [b, d].
    """

    def describe(
        variables: Any,
        images: UInt8[Array, "b h w 3"],
        sizes: Int[Array, "b 2"],
        rescaled: Int[Array, "s b 2"],
    ) -> Float[Array, "b d"]:
        pixels = normalise(images, model.pixels)
        total: Any = 0.0
        for i, scale in enumerate(scales):
            scaled = pixels if scale == 1 else rescale(pixels, sizes, scale)
            result = model.apply(variables, scaled, rescaled[i], train=False)
            total = total + result[0]
        return l2_normalise(total / len(scales))

    return jax.jit(describe)


@dataclasses.dataclass(frozen=True)
class Canvas:
    """A padded shape and the views that go onto it.

    Attributes:
      height: in pixels.
      width: in pixels.
      rows: indices of the views.
    """

    height: int
    width: int
    rows: tuple[int, ...]


def plan_canvases(
    sizes: Int[np.ndarray, "n 2"], limit: int, step: int = 32
) -> list[Canvas]:
    """Chooses at most `limit` canvases with little padding.

    Sides are rounded up to multiples of `step`; then, while there are too many, the two
    canvases are joined whose joining pads the fewest pixels.

    Args:
      sizes: heights and widths.
      limit: most canvases; each costs a compilation.
      step: canvases' sides are multiples of it.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for row, (height, width) in enumerate(-(-sizes // step) * step):
        groups.setdefault((int(height), int(width)), []).append(row)
    while len(groups) > max(limit, 1):
        shapes = sorted(groups)
        pairs = [(a, b) for i, a in enumerate(shapes) for b in shapes[i + 1 :]]
        a, b = min(pairs, key=lambda pair: _cost_of_joining(groups, *pair))
        joined = (max(a[0], b[0]), max(a[1], b[1]))
        rows = groups.pop(a) + groups.pop(b)
        groups.setdefault(joined, []).extend(rows)
    return [Canvas(*shape, tuple(sorted(groups[shape]))) for shape in sorted(groups)]


def _cost_of_joining(
    groups: dict[tuple[int, int], list[int]], a: tuple[int, int], b: tuple[int, int]
) -> int:
    area = max(a[0], b[0]) * max(a[1], b[1])
    return sum(len(groups[shape]) * (area - shape[0] * shape[1]) for shape in (a, b))


def extract(
    describe: Describe,
    variables: Any,
    views: Sequence[View],
    settings: Extraction,
    progress: Callable[[int], Any] = lambda done: None,
) -> Float[np.ndarray, "n d"]:
    """Describes views of any shape.

    Args:
      describe: what `make_describe` made for the settings' scales.
      variables: the model's parameters and statistics.
      views: what to describe.
      settings: how.
      progress: called with the number of views done since the last call.

    Returns:
      Descriptors in the order of the views, float32, L2-normalised.

    Raises:
      UserError: if the model gives something other than numbers.
    """
    sizes = np.array([view.size() for view in views], np.int32).reshape(-1, 2)
    rows_of: list[np.ndarray] = []
    found: list[np.ndarray] = []
    for canvas in plan_canvases(sizes, settings.canvases):
        for rows, batch in _batches(canvas, views, settings.batch_size):
            padded = np.ones((settings.batch_size, 2), np.int32)
            padded[: len(rows)] = sizes[rows]
            rescaled = np.stack(
                [scaled_sizes(padded, scale) for scale in settings.scales]
            )
            described = describe(variables, batch, padded, rescaled)
            found.append(np.asarray(described)[: len(rows)])
            rows_of.append(rows)
            progress(len(rows))
    descriptors = np.concatenate(found)
    ordered = np.empty_like(descriptors)
    ordered[np.concatenate(rows_of)] = descriptors
    _check_finite(ordered, views)
    return ordered


def _check_finite(descriptors: np.ndarray, views: Sequence[View]) -> None:
    bad = np.flatnonzero(~np.isfinite(descriptors).all(axis=1))
    if len(bad):
        raise UserError(
            f"{len(bad)} of {len(views)} descriptors are no numbers, the first that of "
            f"{views[bad[0]].name}: the weights are damaged, or their training diverged"
        )


def _batches(
    canvas: Canvas, views: Sequence[View], batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (rows, padded batch); the next batch is decoded while one is described."""
    rows = np.array(canvas.rows)
    parts = [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]

    def load(part: np.ndarray) -> np.ndarray:
        batch = np.zeros((batch_size, canvas.height, canvas.width, 3), np.uint8)
        for i, row in enumerate(part):
            pixels = views[row].pixels()
            batch[i, : pixels.shape[0], : pixels.shape[1]] = pixels
        return batch

    with ThreadPoolExecutor(1) as ahead:
        pending = ahead.submit(load, parts[0])
        for part, following in zip(parts, [*parts[1:], None], strict=True):
            batch = pending.result()
            if following is not None:
                pending = ahead.submit(load, following)
            yield part, batch
