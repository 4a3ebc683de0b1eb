"""A benchmark's two splits, and its ground truth where photos had to be left out."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from tokret.data.ground_truth import GroundTruth
from tokret.data.preparing.photos import Place
from tokret.data.preparing.problems import Problem
from tokret.data.preparing.recipes import Plan
from tokret.data.preparing.shards import Item

Truth = dict[str, Any]  # imlist, qimlist and gnd
LISTS = ("easy", "hard", "junk")


def as_mapping(truth: GroundTruth) -> Truth:
    """Turns a validated ground truth into plain lists, as metadata keeps it."""
    gnd: list[dict[str, Any]] = [
        {key: getattr(truth, key)[i].tolist() for key in LISTS}
        for i in range(len(truth.queries))
    ]
    if truth.boxes is not None:
        for entry, box in zip(gnd, truth.boxes.tolist(), strict=True):
            entry["bbx"] = box
    return {"imlist": list(truth.images), "qimlist": list(truth.queries), "gnd": gnd}


def without(truth: Truth, images: Collection[int], queries: Collection[int]) -> Truth:
    """Leaves photos out of a ground truth.

    Args:
      truth: a benchmark.
      images: positions in imlist.
      queries: positions in qimlist.

    Returns:
      The benchmark of the others, their indices moved up.
    """
    kept = [i for i in range(len(truth["imlist"])) if i not in images]
    index = {old: new for new, old in enumerate(kept)}
    asked = [i for i in range(len(truth["qimlist"])) if i not in queries]
    gnd = [
        truth["gnd"][i]
        | {key: [index[j] for j in truth["gnd"][i][key] if j in index] for key in LISTS}
        for i in asked
    ]
    return {
        "imlist": [truth["imlist"][i] for i in kept],
        "qimlist": [truth["qimlist"][i] for i in asked],
        "gnd": gnd,
    }


def plain_stem(name: str) -> str:
    """A photo's name; some ground truths write the suffix, most do not."""
    return name.rpartition("/")[2].removesuffix(".jpg")


def plan_benchmark(truth: Truth, places: Mapping[str, Place], root: Path) -> Plan:
    """Plans a benchmark's two splits.

    Args:
      truth: the whole benchmark.
      places: of the photos that there are, by name without suffix.
      root: where the others are missing, for the list of them.
    """

    def missing(names: Sequence[str]) -> list[int]:
        return [i for i, name in enumerate(names) if plain_stem(name) not in places]

    def items(names: Sequence[str]) -> list[Item]:
        stems = map(plain_stem, names)
        return [Item(f"{stem}.jpg", places[stem], {}) for stem in stems]

    images, queries = missing(truth["imlist"]), missing(truth["qimlist"])
    lacking = {plain_stem(truth["imlist"][i]) for i in images}
    lacking |= {plain_stem(truth["qimlist"][i]) for i in queries}
    rest = without(truth, set(images), set(queries))

    def metadata(left_out: Mapping[str, set[int]]) -> dict[str, Any]:
        kept = without(rest, left_out["database"], left_out["query"])
        return {"ground_truth": kept}

    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "filename": tfds.features.Text(),
        }
    )
    return Plan(
        features=features,
        splits={"query": items(rest["qimlist"]), "database": items(rest["imlist"])},
        missing=[
            Problem(f"{stem}.jpg", str(root), "missing") for stem in sorted(lacking)
        ],
        metadata=metadata,
    )
