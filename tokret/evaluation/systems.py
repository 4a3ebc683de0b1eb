"""Systems that extract descriptors: a model, trained or not, and a colour histogram."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tokret.config.tree import ExtractionConfig, InferenceConfig
from tokret.errors import UserError
from tokret.evaluation.concatenation import ConcatenatedRows, ConcatenatedViews
from tokret.evaluation.image_sets import DescriptorSet, ImageSets
from tokret.models.build import build_model
from tokret.retrieval.canvases import canvas_summary, plan_canvases
from tokret.retrieval.colour_histogram import colour_histogram
from tokret.retrieval.embedding import EmbedFn, make_embed_fn
from tokret.retrieval.extraction import Embedder, MemoryWriter, extract_into
from tokret.retrieval.report.token_maps import TokenMapper, make_token_mapper
from tokret.retrieval.store.record import Images, Record, weights_digest
from tokret.retrieval.store.writing import write_store
from tokret.retrieval.view_batches import scan_photos
from tokret.runtime.process_group import ALONE, ProcessGroup, all_processes
from tokret.runtime.progress import Progress
from tokret.training.checkpoint_arrays import on_first_device
from tokret.training.checkpoint_metadata import check_pixels, read_metadata
from tokret.training.initial_weights import load_initial_weights
from tokret.training.weights import restore_weights

INTERPOLATION = "photos by Pillow's LANCZOS thumbnail, scales of them bilinearly"
# Image sets -> their descriptors: a model with its weights, or a baseline.
System = Callable[[ImageSets], dict[str, DescriptorSet]]


@dataclasses.dataclass(frozen=True)
class ModelSystem:
    """A model with its weights, whose descriptors are kept in a store for each set."""

    embed: EmbedFn  # of `make_embed_fn` for the settings' scales
    variables: Any  # the model's parameters and statistics
    settings: ExtractionConfig  # how descriptors are extracted
    model: dict[str, Any]  # the model's fields, `config.model`
    folder: Path  # of the stores, each named as its set
    log: Callable[[str], None]  # called with lines on what is going to be computed
    token_maps: TokenMapper  # from views to the maps of the model's tokens
    # Processes that extract together; only the first writes stores.
    group: ProcessGroup = ALONE

    def __call__(self, sets: ImageSets) -> dict[str, DescriptorSet]:
        """Extracts the descriptors that are not in the stores yet, by set.

        Processes other than the first return nothing.

        Raises:
          UserError: if a store has other descriptors, or no photo can be read.
        """
        views, settings = ConcatenatedViews(sets), self.settings
        with self._bar("reading", len(self.group.part_of(len(views)))) as bar:
            photos = scan_photos(views, bar.update, self.group)
        canvases = plan_canvases(photos.sizes, settings.canvases, settings.batch_size)
        embedder = Embedder(self.embed, self.variables, settings)
        arguments = (embedder, views, photos, canvases)
        if not self.group.first:
            rows = MemoryWriter(len(views))
            extract_into(rows, *arguments, group=self.group)
            return {}
        scanned = views.split(photos)
        with contextlib.ExitStack() as stack:
            writers = {
                name: stack.enter_context(
                    write_store(self.folder / name, self.record(each.images))
                )
                for name, each in scanned.items()
            }
            stored = ConcatenatedRows(views.ranges, writers)
            done = int(stored.finished.sum())
            missing = {n: int((~each.finished).sum()) for n, each in writers.items()}
            start = time.perf_counter()
            self.log(f"descriptors: {self.folder}: {done} of {len(views)} exist")
            if done < len(views):
                for line in canvas_summary(canvases, photos.sizes, settings.batch_size):
                    self.log(line)
            with self._bar("extracting", len(views), done) as bar:
                extract_into(stored, *arguments, bar.update, self.group)
            pace = (time.perf_counter() - start) / max(1, len(views) - done)
            for name, each in scanned.items():
                writers[name].mark_bad(each.bad)
            stores = {name: writer.finish() for name, writer in writers.items()}
        return {
            name: DescriptorSet(
                store.names,
                store.descriptors,
                store.bad,
                missing[name],
                missing[name] * pace,
            )
            for name, store in stores.items()
        }

    def _bar(self, title: str, total: int, initial: int = 0) -> Progress:
        return Progress(title, total, initial, shown=self.group.first)

    def record(self, images: Images) -> Record:
        """The record of a store of these images' descriptors."""
        how = preprocessing(self.settings.longest_side, self.settings.scales)
        return Record(self.model, weights_digest(self.variables), how, images)


def preprocessing(longest_side: int, scales: Sequence[float]) -> dict[str, Any]:
    """How photos are scaled, as a store's record has it."""
    return {
        "longest_side": longest_side,
        "scales": [float(scale) for scale in scales],
        "interpolation": INTERPOLATION,
    }


def model_systems(
    config: InferenceConfig,
    settings: ExtractionConfig,
    checkpoint: Path,
    ema: bool,
    stores: Path,
    log: Callable[[str], None],
) -> tuple[ModelSystem, Callable[[], ModelSystem]]:
    """Restores a checkpoint's model.

    Args:
      config: the run's.
      settings: how descriptors are extracted.
      checkpoint: its folder.
      ema: whether the EMA of the weights is taken for them.
      stores: folder of the dataset's stores; each model has one below.
      log: called with lines on what is going to be computed.

    Returns:
      The trained model, and a function that makes the untrained one.

    Raises:
      UserError: if the checkpoint is damaged, or is of another model.
    """
    check_pixels(checkpoint, config)
    fields = dataclasses.asdict(config.model)
    model = build_model(**fields)
    embed = make_embed_fn(model, settings.scales)

    def system(variables: Any, name: str) -> ModelSystem:
        folder = stores / f"{name}-{settings_name(settings)}"
        token_maps = make_token_mapper(model, variables, settings)
        return ModelSystem(
            embed,
            variables,
            settings,
            fields,
            folder,
            log,
            token_maps,
            all_processes(),
        )

    def initial() -> Any:
        # The key of tokret.training.state.init_state: the weights training began with.
        key, _ = jax.random.split(jax.random.key(config.seed))
        return model.init(key, jnp.zeros((1, 64, 64, 3)), train=False)

    shapes = on_first_device(jax.eval_shape(initial))
    trained = restore_weights(checkpoint, shapes, ema=ema)

    def untrained() -> ModelSystem:
        drawn = jax.jit(initial)()
        weights = load_initial_weights(config.init, config.model, drawn, shapes)
        return system(weights, "untrained")

    name = f"step-{read_metadata(checkpoint).step}{'-ema' if ema else ''}"
    return system(trained, name), untrained


def settings_name(settings: ExtractionConfig) -> str:
    """The settings as part of a folder's name: side and scales, as 1024px-1-1.4142."""
    scales = "-".join(f"{scale:.5g}" for scale in settings.scales)
    return f"{settings.longest_side}px-{scales}"


def histogram_system(sets: ImageSets) -> dict[str, DescriptorSet]:
    """Descriptors of the colours alone."""
    found = {}
    for name, views in sets.items():
        rows, names = MemoryWriter(len(views)), []
        for row in range(len(views)):
            names.append(f"record {row}")
            try:
                view = views[row]
                names[row] = view.name
                histogram = colour_histogram(view.pixels())
            except UserError as error:
                rows.bad[row] = str(error)
            else:
                rows.write(np.array([row]), histogram[None], {})
        if rows.descriptors is None:
            raise UserError(f"no photo of the {name} can be read: {rows.bad.get(0)}")
        found[name] = DescriptorSet(tuple(names), rows.descriptors, rows.bad)
    return found
