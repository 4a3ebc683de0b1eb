"""An index of random descriptors, made in minutes where photos would take hours.

Its model is real, EfficientNet-Lite0 with Token, with random weights: speed and memory
do not depend on what they are. There are no files of its photos.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import msgspec
import numpy as np

from tokret.config import stored
from tokret.config.parsing import parse_saved
from tokret.models.build import build_model
from tokret.retrieval.store.record import Images
from tokret.runtime.progress import progress_bar
from tokret.search.catalogue import FILE, WEIGHTS
from tokret.search.catalogue_rows import PhotoEntry
from tokret.search.catalogue_writing import writing
from tokret.search.extractor import Extractor, load_extractor, save_copy
from tokret.search.part_stores import to_array, write_part
from tokret.search.photos import Stamp
from tokret.shapes import Float
from tokret.training.weights import save_weights

PART = 4096  # rows
FOLDER = 1000  # photos in each folder
COPY = f"{0:016x}"  # the index's copy of the weights
SIDE = 224  # longest side of a photo, in pixels


def make_extractor(
    folder: Path, dims: int, trunk: str = "efficientnet_lite0"
) -> Extractor:
    """Saves a model whose weights are random, and restores it.

    Args:
      folder: for the model; it must not exist.
      dims: of the descriptors.
      trunk: of the model.
    """
    fields: dict[str, Any] = {"trunk": trunk, "head": "token", "dtype": "float32"}
    fields |= {"dim": dims, "width": dims}
    model = build_model(**fields)
    shape = jnp.zeros((1, 32, 32, 3))
    draw = jax.jit(lambda key: model.init(key, shape, train=False))
    variables = draw(jax.random.key(0))
    evaluation = {"longest_side": SIDE, "scales": [1.0], "batch_size": 32}
    config = parse_saved({"model": fields, "evaluation": evaluation, "seed": 0})
    folder.mkdir(parents=True)
    stored.save(config, folder / "config.json")
    save_weights(
        folder, {"model": variables["params"]}, variables["batch_stats"], config
    )
    return load_extractor(folder)


def write_index(
    index: Path, root: Path, extractor: Extractor, rows: int, dims: int
) -> None:
    """Writes an index of random descriptors of length 1.

    Args:
      index: its folder; it must not exist.
      root: the folder that its photos would be in.
      extractor: the model.
      rows: how many photos, all different.
      dims: of the descriptors.
    """
    rng = np.random.default_rng(0)
    save_copy(extractor, index / WEIGHTS / COPY)
    model = msgspec.structs.replace(extractor.model, copy=COPY)
    with writing(index, str(root.resolve()), FILE, model, is_new=True) as catalogue:
        for first in progress_bar(range(0, rows, PART), unit="part", leave=False):
            numbers = range(first, min(rows, first + PART))
            images, descriptors = _part(numbers, rng, dims)
            part = write_part(index, extractor.system.record(images), descriptors)
            catalogue.add_part(part, to_array(images.digests))
            catalogue.put(
                PhotoEntry(name, Stamp(100_000, 1), "", digest, part, row)
                for row, (name, digest) in enumerate(
                    zip(images.names, images.digests, strict=True)
                )
            )
            catalogue.commit()


def _part(
    numbers: range, rng: np.random.Generator, dims: int
) -> tuple[Images, Float[np.ndarray, "n d"]]:
    count = len(numbers)
    names = tuple(f"{n // FOLDER:06d}/{n:09d}.jpg" for n in numbers)
    # Digests of files are random too.
    digests = [f"{n:016x}" for n in rng.integers(0, 2**64, count, np.uint64).tolist()]
    images = Images(names, ((SIDE, SIDE),) * count, (None,) * count, tuple(digests))
    descriptors = rng.standard_normal((count, dims), np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    return images, descriptors
