"""What is measured: a trained model, the same one untrained, a colour histogram."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from tokret.configuration import Config, call, part
from tokret.data.views import View
from tokret.models import build_model
from tokret.retrieval.extraction import Extraction, extract, make_describe
from tokret.retrieval.histogram import colour_histogram
from tokret.training.start import Start
from tokret.training.weights import replicated, restore_weights

# Views -> descriptors [n, d]: a model with its weights, or a baseline.
System = Callable[[Sequence[View]], np.ndarray]


def model_systems(
    config: Config,
    settings: Extraction,
    workdir: Path,
    step: int | None,
    averaged: bool,
) -> tuple[System, Callable[[], System], int]:
    """Restores a run's model.

    Args:
      config: the run's.
      settings: how descriptors are made.
      workdir: the run's folder.
      step: the checkpoint's step; None takes the newest.
      averaged: whether the moving average of the weights is taken for them.

    Returns:
      The trained model, a maker of the untrained one, and the step.

    Raises:
      UserError: if there is no such checkpoint, or it holds another model.
    """
    model = call(build_model, "model", part(config, "model", dict))
    describe = make_describe(model, settings.scales)

    def system(variables: Any) -> System:
        def run(views: Sequence[View]) -> np.ndarray:
            with tqdm(total=len(views), unit="photo", disable=None) as bar:
                return extract(
                    describe,
                    variables,
                    views,
                    settings=settings,
                    progress=bar.update,
                )

        return run

    def initial() -> Any:
        # The key of tokret.training.state.init_state: the weights training began with.
        key, _ = jax.random.split(jax.random.key(part(config, "seed", int)))
        return model.init(key, np.zeros((1, 64, 64, 3), np.float32), train=False)

    shapes = replicated(jax.eval_shape(initial))
    trained, found = restore_weights(workdir, shapes, step, averaged=averaged)

    def untrained() -> System:
        start = call(Start, "init", part(config, "init", dict))
        drawn = jax.jit(initial)()
        return system(start.overlay(drawn, shapes, part(config, "model", dict)))

    return system(trained), untrained, found


def histogram_system(views: Sequence[View]) -> np.ndarray:
    """Describes views by their colours alone."""
    return np.stack([colour_histogram(view.pixels()) for view in views])
