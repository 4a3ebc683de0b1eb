"""The programs of a service: compiled once, for a few canvases and batch sizes."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tokret.evaluation.systems import ModelSystem
from tokret.retrieval.embedding import batch_shardings, scaled_sizes
from tokret.shapes import Array, Float, Int, UInt8

BATCH_SIZES = (1, 4, 8)
STEP = 32  # sides of canvases are multiples of it, as of those of `plan_canvases`
Shape = tuple[int, int]  # height, width


def canvases(longest_side: int) -> list[Shape]:
    """The square, 4:3 and 3:4 at a longest side, the smallest first."""
    longer, shorter = (
        -(-side // STEP) * STEP for side in (longest_side, longest_side * 3 / 4)
    )
    shapes = {
        (int(h), int(w))
        for h, w in ((longer, longer), (shorter, longer), (longer, shorter))
    }
    return sorted(shapes, key=lambda shape: (shape[0] * shape[1], shape))


def split(count: int, sizes: Sequence[int]) -> Iterator[int]:
    """Divides photos into batches of these sizes, none less than 3/4 full but of 1."""
    while count > 0:
        size = max(n for n in sizes if 3 * n <= 4 * count or n == 1)
        yield size
        count -= size


class Programs:
    """Descriptors of decoded photos, by compiled programs."""

    def __init__(
        self,
        system: ModelSystem,
        log: Callable[[str], None] = lambda line: None,
        largest: int = BATCH_SIZES[-1],
    ) -> None:
        """Compiles those of one photo.

        Args:
          system: the model.
          log: called with a line for each canvas.
          largest: batch that will be compiled.
        """
        self._system = system
        self._sizes = [size for size in BATCH_SIZES if size <= max(1, largest)]
        self.canvases = canvases(system.settings.longest_side)
        self._shardings = {
            size: batch_shardings(size, jax.local_devices()) for size in self._sizes
        }
        self._variables = {
            size: jax.device_put(system.variables, replicated)
            for size, (_, _, replicated) in self._shardings.items()
        }
        self._compiled: dict[tuple[Shape, int], Any] = {}
        for number, canvas in enumerate(self.canvases, 1):
            log(
                f"compiling for {canvas[0]} x {canvas[1]} pixels "
                f"({number} of {len(self.canvases)})"
            )
            self._compiled[canvas, 1] = self._compile(canvas, 1)

    def compile_batches(self, stopped: Callable[[], bool] = lambda: False) -> None:
        """Compiles those of several photos, while the others are in use already."""
        for size, canvas in itertools.product(self._sizes[1:], self.canvases):
            if stopped():
                return
            self._compiled[canvas, size] = self._compile(canvas, size)

    def _compile(self, canvas: Shape, size: int) -> Any:
        by_row, by_scale, _ = self._shardings[size]
        scales = len(self._system.settings.scales)
        arrays = (
            jax.ShapeDtypeStruct((size, *canvas, 3), jnp.uint8, sharding=by_row),
            jax.ShapeDtypeStruct((size, 2), jnp.int32, sharding=by_row),
            jax.ShapeDtypeStruct((scales, size, 2), jnp.int32, sharding=by_scale),
        )
        embed: Any = self._system.embed  # jitted
        return embed.lower(self._variables[size], *arrays).compile()

    def canvas_of(self, pixels: UInt8[np.ndarray, "h w 3"]) -> Shape:
        """The smallest canvas that a photo fits in."""
        height, width = pixels.shape[:2]
        return next(c for c in self.canvases if c[0] >= height and c[1] >= width)

    def embed(
        self, photos: Sequence[UInt8[np.ndarray, "h w 3"]]
    ) -> tuple[Float[np.ndarray, "n d"], list[int]]:
        """Extracts descriptors.

        Args:
          photos: decoded, at most the index's longest side long.

        Returns:
          Descriptors in the order of the photos, and the sizes of the batches.
        """
        by_canvas = sorted(
            range(len(photos)), key=lambda row: self.canvas_of(photos[row])
        )
        found: list[np.ndarray] = [np.empty(0)] * len(photos)
        batches = []
        for canvas, group in itertools.groupby(
            by_canvas, key=lambda row: self.canvas_of(photos[row])
        ):
            rows = list(group)
            sizes = [n for n in self._sizes if (canvas, n) in self._compiled]
            for size in split(len(rows), sizes):
                batch, rows = rows[:size], rows[size:]
                batches.append(len(batch))
                descriptors = self._run(canvas, size, [photos[row] for row in batch])
                for row, descriptor in zip(batch, descriptors, strict=False):
                    found[row] = descriptor
        return np.stack(found), batches

    def embed_batch(
        self,
        variables: Any,
        images: UInt8[Array, "b h w 3"],
        sizes: Int[Array, "b 2"],
        scaled: Int[Array, "s b 2"],
    ) -> Float[np.ndarray, "b d"]:
        """An `EmbedFn` of these programs, which compiles nothing."""
        photos = [
            image[:height, :width]
            for image, (height, width) in zip(
                np.asarray(images), np.asarray(sizes).tolist(), strict=True
            )
        ]
        return self.embed(photos)[0]

    def _run(
        self, canvas: Shape, size: int, photos: Sequence[UInt8[np.ndarray, "h w 3"]]
    ) -> Float[np.ndarray, "b d"]:
        images = np.zeros((size, *canvas, 3), np.uint8)
        sizes = np.ones((size, 2), np.int32)
        for row, pixels in enumerate(photos):
            sizes[row] = pixels.shape[:2]
            images[row, : pixels.shape[0], : pixels.shape[1]] = pixels
        by_row, by_scale, _ = self._shardings[size]
        scaled = scaled_sizes(sizes, self._system.settings.scales)
        arrays = jax.device_put((images, sizes, scaled), (by_row, by_row, by_scale))
        found = self._compiled[canvas, size](self._variables[size], *arrays)
        return np.asarray(found, np.float32)
