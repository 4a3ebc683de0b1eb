"""Views of any shape -> descriptors, in full batches, exactly.

Views are padded at the right and the bottom to a few canvases and the model masks the
padding by their true sizes. A descriptor is the same as if its view were alone, and an
evaluation compiles one program a canvas.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np

from tokret.config.tree import ExtractionConfig
from tokret.data.views import View
from tokret.errors import UserError
from tokret.retrieval.canvases import Canvas, plan_canvases
from tokret.retrieval.embedding import EmbedFn, batch_shardings, scaled_sizes
from tokret.retrieval.view_batches import ScannedPhotos, load_batches, scan_photos
from tokret.runtime.process_group import ALONE, Arrays, ProcessGroup
from tokret.shapes import Bool, Float, Int


@runtime_checkable
class DescriptorWriter(Protocol):
    """Takes descriptors batch by batch, in any order: into memory, or a store."""

    @property
    def finished(self) -> Bool[np.ndarray, " n"]:
        """Which rows are already written."""

    def write(
        self,
        rows: Int[np.ndarray, " b"],
        descriptors: Float[np.ndarray, "b d"],
        bad: Mapping[int, str],
    ) -> None:
        """Writes a batch; NaN for bad rows, whose reasons are in `bad`."""


class Embedder(NamedTuple):
    """A function of `make_embed_fn`, the model's variables, and its settings."""

    embed: EmbedFn
    variables: Any
    settings: ExtractionConfig


class MemoryWriter:
    """Keeps descriptors [N, D], and the reasons of bad rows, in memory."""

    def __init__(self, count: int) -> None:
        """Starts with N rows, none of them written."""
        self.finished = np.zeros(count, bool)
        self.descriptors: np.ndarray | None = None
        self.bad: dict[int, str] = {}

    def write(
        self,
        rows: Int[np.ndarray, " b"],
        descriptors: Float[np.ndarray, "b d"],
        bad: Mapping[int, str],
    ) -> None:
        """Writes a batch."""
        if self.descriptors is None:
            shape = (len(self.finished), descriptors.shape[1])
            self.descriptors = np.full(shape, np.nan, descriptors.dtype)
        self.descriptors[rows] = descriptors
        self.finished[rows] = True
        self.bad |= bad


def extract(
    embed: EmbedFn,
    variables: Any,
    views: Sequence[View],
    settings: ExtractionConfig,
    progress: Callable[[int], Any] = lambda done: None,
) -> Float[np.ndarray, "n d"]:
    """Extracts the descriptors of views of any shape, all of them readable.

    Args:
      embed: from `make_embed_fn` for the settings' scales.
      variables: the model's parameters and statistics.
      views: the photos.
      settings: how descriptors are made.
      progress: called with the number of views done since the last call.

    Returns:
      Descriptors in the order of the views, L2-normalised.

    Raises:
      UserError: if a photo is bad, or a descriptor is not finite.
    """
    photos = scan_photos(views)
    writer = MemoryWriter(len(views))
    if not photos.bad:
        canvases = plan_canvases(photos.sizes, settings.canvases, settings.batch_size)
        embedder = Embedder(embed, variables, settings)
        extract_into(writer, embedder, views, photos, canvases, progress)
    for why in [*photos.bad.values(), *writer.bad.values()]:
        raise UserError(why)
    assert writer.descriptors is not None
    return writer.descriptors


def extract_into(
    writer: DescriptorWriter,
    embedder: Embedder,
    views: Sequence[View],
    photos: ScannedPhotos,
    canvases: Sequence[Canvas],
    progress: Callable[[int], Any] = lambda done: None,
    group: ProcessGroup = ALONE,
) -> None:
    """Extracts, batch by batch, the descriptors that are not written yet.

    Batches do not depend on the rows already written, so an image is always computed
    with the same neighbours. Processes take the batches in turn, each splits its own
    over its devices, and the first process writes them.

    Args:
      writer: of the descriptors; used in the first process alone.
      embedder: the model.
      views: the photos.
      photos: from `scan_photos` of the views.
      canvases: from `plan_canvases` of their sizes.
      progress: called with the number of views done since the last call.
      group: processes that divide the batches.

    Raises:
      UserError: if a descriptor is not finite.
    """
    finished = group.broadcast({"rows": writer.finished})["rows"]
    size = embedder.settings.batch_size
    batches = [batch for canvas in canvases for batch in canvas.batches(size)]
    left = [b for b in batches if not finished[list(b.rows)].all()]
    mine = left[group.index :: group.count]
    embedded = _embed_batches(embedder, views, photos.sizes, mine)
    for _ in left[:: group.count]:
        together = group.gather(next(embedded, {}))
        if group.first:
            # At the end there may be fewer batches than processes.
            progress(_write(writer, photos, [batch for batch in together if batch]))


def _embed_batches(
    embedder: Embedder,
    views: Sequence[View],
    sizes: Int[np.ndarray, "n 2"],
    batches: Sequence[Canvas],
) -> Iterator[Arrays]:
    """Yields of each batch: rows [b], descriptors [b, d], its bad rows, and why."""
    batch_size = embedder.settings.batch_size
    by_row, by_scale, replicated = batch_shardings(batch_size, jax.local_devices())
    variables = jax.device_put(embedder.variables, replicated)
    running: list[tuple[Canvas, dict[int, str], jax.Array]] = []
    for batch, images, bad in load_batches(views, batches, sizes, batch_size):
        padded = np.ones((batch_size, 2), np.int32)
        padded[: len(batch.rows)] = sizes[list(batch.rows)]
        arrays = images, padded, scaled_sizes(padded, embedder.settings.scales)
        on_devices = jax.device_put(arrays, (by_row, by_row, by_scale))
        running.append((batch, bad, embedder.embed(variables, *on_devices)))
        # The devices compute the next batch while this one is written.
        if len(running) > 1:
            yield _to_arrays(*running.pop(0))
    for last in running:
        yield _to_arrays(*last)


def _to_arrays(
    batch: Canvas, bad: Mapping[int, str], descriptors: jax.Array | np.ndarray
) -> Arrays:
    return {
        "rows": np.array(batch.rows),
        "descriptors": np.array(descriptors)[: len(batch.rows)],
        "bad": np.array(list(bad), np.int64),
        "why": np.array(list(bad.values()), np.str_),
    }


def _write(
    writer: DescriptorWriter, photos: ScannedPhotos, batches: Sequence[Arrays]
) -> int:
    """Writes batches, with NaN for their bad rows; returns the number of views."""
    names = ("rows", "descriptors", "bad", "why")
    rows, descriptors, bad, why = (
        np.concatenate([batch[name] for batch in batches]) for name in names
    )
    good = ~np.isin(rows, bad)
    wrong = rows[good & ~np.isfinite(descriptors).all(axis=1)]
    if len(wrong):
        raise UserError(
            f"the descriptor of {photos.images.names[wrong[0]]} is not finite: the "
            "weights are damaged, or their training diverged"
        )
    descriptors[~good] = np.nan
    writer.write(rows, descriptors, dict(zip(bad.tolist(), why.tolist(), strict=True)))
    return len(rows)
