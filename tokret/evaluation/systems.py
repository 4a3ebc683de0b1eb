"""What is measured: a trained model, the same one untrained, a colour histogram."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from tokret.configuration import Config, call, part
from tokret.errors import UserError
from tokret.evaluation.views import Chain, ChainedRows, Parts
from tokret.models.build import build_model
from tokret.retrieval.canvases import Canvas, plan_canvases, plan_words
from tokret.retrieval.colour_histogram import colour_histogram
from tokret.retrieval.extraction import (
    Describe,
    Extraction,
    extract_into,
    make_describe,
)
from tokret.retrieval.report.token_maps import TokenMapper, make_token_mapper
from tokret.retrieval.rows import Rows, RowsInMemory
from tokret.retrieval.store.record import Images, Record, weights_digest
from tokret.retrieval.store.writing import making
from tokret.retrieval.view_batches import Survey, survey
from tokret.runtime.process_group import ALONE, Group, all_processes
from tokret.shapes import Float
from tokret.training.checkpoint_arrays import on_first_device
from tokret.training.checkpoint_description import check_pixels
from tokret.training.initial_weights import Start
from tokret.training.weights import restore_weights, step_of

INTERPOLATION = "photos by Pillow's LANCZOS thumbnail, scales of them bilinearly"


@dataclasses.dataclass(frozen=True)
class Described:
    """A part's descriptors.

    Attributes:
      names: of the images.
      descriptors: [N, D]; NaN where the image is bad.
      bad: by row, why an image could not be described.
      fresh: how many were described now, and not taken from a store.
      seconds: what these took, compilation included.
    """

    names: tuple[str, ...]
    descriptors: Float[np.ndarray, "n d"]
    bad: Mapping[int, str]
    fresh: int = 0
    seconds: float = 0.0


# Parts -> their descriptors: a model with its weights, or a baseline.
System = Callable[[Parts], dict[str, Described]]


@dataclasses.dataclass(frozen=True)
class ModelSystem:
    """A model with its weights, whose descriptors stay in stores, one a part.

    Attributes:
      describe: what `make_describe` made for the settings' scales.
      variables: the model's parameters and statistics.
      settings: how descriptors are made.
      model: the model's description, `config.model`.
      folder: of the stores, each called by its part.
      say: told, in lines, what is going to be computed.
      look: gives the maps of the model's tokens.
      group: processes that describe together; only the first writes stores.
    """

    describe: Describe
    variables: Any
    settings: Extraction
    model: dict[str, Any]
    folder: Path
    say: Callable[[str], None]
    look: TokenMapper
    group: Group = ALONE

    def __call__(self, parts: Parts) -> dict[str, Described]:
        """Describes what is not in the stores yet.

        Returns:
          By part, its descriptors; nothing in other processes than the first.

        Raises:
          UserError: if a store holds other descriptors, or no photo can be read.
        """
        views, settings = Chain(parts), self.settings
        with self._bar("reading", len(self.group.share(len(views)))) as bar:
            photos = survey(views, bar.update, self.group)
        canvases = plan_canvases(photos.sizes, settings.canvases, settings.batch_size)
        if not self.group.first:
            self._extract(RowsInMemory(len(views)), views, photos, canvases)
            return {}
        with contextlib.ExitStack() as stack:
            writers = {
                name: stack.enter_context(
                    making(self.folder / name, self.record(of_part.images))
                )
                for name, of_part in views.surveys(photos).items()
            }
            rows = ChainedRows(views.ranges, writers)
            there = int(rows.finished.sum())
            fresh = {n: int((~each.finished).sum()) for n, each in writers.items()}
            start = time.perf_counter()
            self.say(f"descriptors: {self.folder}: {there} of {len(views)} are there")
            if there < len(views):
                for line in plan_words(canvases, photos.sizes, settings.batch_size):
                    self.say(line)
            with self._bar("describing", len(views), there) as bar:
                self._extract(rows, views, photos, canvases, bar.update)
            pace = (time.perf_counter() - start) / max(1, len(views) - there)
            for name, of_part in views.surveys(photos).items():
                writers[name].mark_bad(of_part.bad)
            stores = {name: writer.finish() for name, writer in writers.items()}
        return {
            name: Described(
                store.names,
                store.descriptors,
                store.bad,
                fresh[name],
                fresh[name] * pace,
            )
            for name, store in stores.items()
        }

    def _extract(
        self,
        rows: Rows,
        views: Chain,
        photos: Survey,
        canvases: Sequence[Canvas],
        progress: Callable[[int], Any] = lambda done: None,
    ) -> None:
        extract_into(
            rows,
            self.describe,
            self.variables,
            views,
            photos,
            canvases,
            self.settings,
            progress,
            self.group,
        )

    def _bar(self, what: str, total: int, initial: int = 0) -> Any:
        # None: a bar where a terminal shows it.
        off = None if self.group.first else True
        return tqdm(total=total, initial=initial, unit="photo", desc=what, disable=off)

    def record(self, images: Images) -> Record:
        """What a store of these images' descriptors says of itself."""
        preprocessing = {
            "longest_side": self.settings.longest_side,
            "scales": [float(scale) for scale in self.settings.scales],
            "interpolation": INTERPOLATION,
        }
        digest = weights_digest(self.variables)
        return Record(self.model, digest, preprocessing, images)


def model_systems(
    config: Config,
    settings: Extraction,
    checkpoint: Path,
    ema: bool,
    stores: Path,
    say: Callable[[str], None],
) -> tuple[ModelSystem, Callable[[], ModelSystem]]:
    """Restores a checkpoint's model.

    Args:
      config: the run's.
      settings: how descriptors are made.
      checkpoint: its folder.
      ema: whether the exponential moving average of the weights is taken for them.
      stores: folder of the dataset's stores, one below for each model and settings.
      say: told, in lines, what is going to be computed.

    Returns:
      The trained model, and a maker of the untrained one.

    Raises:
      UserError: if the checkpoint is damaged, or holds another model.
    """
    check_pixels(checkpoint, config)
    fields = part(config, "model", dict)
    model = call(build_model, "model", fields)
    describe = make_describe(model, settings.scales)

    def system(variables: Any, name: str) -> ModelSystem:
        folder = stores / f"{name}-{settings_name(settings)}"
        look = make_token_mapper(model, variables, settings)
        group = all_processes()
        return ModelSystem(
            describe, variables, settings, fields, folder, say, look, group
        )

    def initial() -> Any:
        # The key of tokret.training.state.init_state: the weights training began with.
        key, _ = jax.random.split(jax.random.key(part(config, "seed", int)))
        return model.init(key, jnp.zeros((1, 64, 64, 3)), train=False)

    shapes = on_first_device(jax.eval_shape(initial))
    trained = restore_weights(checkpoint, shapes, ema=ema)

    def untrained() -> ModelSystem:
        start = call(Start, "init", part(config, "init", dict))
        drawn = jax.jit(initial)()
        return system(start.overlay(drawn, shapes, fields), "untrained")

    name = f"step-{step_of(checkpoint)}{'-ema' if ema else ''}"
    return system(trained, name), untrained


def settings_name(settings: Extraction) -> str:
    """What a folder of stores is called by: side and scales, as 1024px-1-1.4142."""
    scales = "-".join(f"{scale:.5g}" for scale in settings.scales)
    return f"{settings.longest_side}px-{scales}"


def histogram_system(parts: Parts) -> dict[str, Described]:
    """Describes photos by their colours alone."""
    found = {}
    for name, views in parts.items():
        rows, names = RowsInMemory(len(views)), []
        for row in range(len(views)):
            try:
                names.append(f"record {row}")
                view = views[row]
                names[row] = view.name
                described = colour_histogram(view.pixels())[None]
            except UserError as error:
                rows.bad[row] = str(error)
                continue
            rows.write(np.array([row]), described, {})
        if rows.descriptors is None:
            raise UserError(f"no photo of the {name} can be read: {rows.bad.get(0)}")
        found[name] = Described(tuple(names), rows.descriptors, rows.bad)
    return found
