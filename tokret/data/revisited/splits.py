"""A benchmark's two splits, and its ground truth without missing photos."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokret.data.ground_truth import LISTS, GroundTruth
from tokret.data.preparing.dataset_specs import DatasetContents, photo_features
from tokret.data.preparing.photo_files import PhotoLocation
from tokret.data.preparing.problems import Problem
from tokret.data.preparing.shards import SourcePhoto

Truth = dict[str, Any]  # imlist, qimlist and gnd


def as_mapping(truth: GroundTruth) -> Truth:
    """Converts a validated ground truth to plain lists, as in a dataset's metadata."""
    gnd: list[dict[str, Any]] = [
        {key: getattr(truth, key)[i].tolist() for key in LISTS}
        for i in range(len(truth.queries))
    ]
    if truth.boxes is not None:
        for entry, box in zip(gnd, truth.boxes.tolist(), strict=True):
            entry["bbx"] = box
    return {"imlist": list(truth.images), "qimlist": list(truth.queries), "gnd": gnd}


def without(truth: Truth, images: Collection[int], queries: Collection[int]) -> Truth:
    """Removes images (indices into imlist) and queries (indices into qimlist)."""
    kept = [i for i in range(len(truth["imlist"])) if i not in images]
    index = {old: new for new, old in enumerate(kept)}
    kept_queries = [i for i in range(len(truth["qimlist"])) if i not in queries]
    gnd = [
        truth["gnd"][i]
        | {key: [index[j] for j in truth["gnd"][i][key] if j in index] for key in LISTS}
        for i in kept_queries
    ]
    return {
        "imlist": [truth["imlist"][i] for i in kept],
        "qimlist": [truth["qimlist"][i] for i in kept_queries],
        "gnd": gnd,
    }


def plain_stem(name: str) -> str:
    """A photo's name without folders and suffix, which only some ground truths have."""
    return name.rpartition("/")[2].removesuffix(".jpg")


def benchmark_contents(
    truth: Truth, locations: Mapping[str, PhotoLocation], root: Path
) -> DatasetContents:
    """Lists a benchmark's two splits.

    `locations` are of the photos that exist in `root`, by name without suffix.
    """
    names = {key: [plain_stem(n) for n in truth[key]] for key in ("imlist", "qimlist")}
    missing = {
        key: {i for i, stem in enumerate(stems) if stem not in locations}
        for key, stems in names.items()
    }
    lacking = {names[key][i] for key, rows in missing.items() for i in rows}
    existing = without(truth, missing["imlist"], missing["qimlist"])

    def photos(names: Sequence[str]) -> list[SourcePhoto]:
        stems = map(plain_stem, names)
        return [SourcePhoto(f"{stem}.jpg", locations[stem], {}) for stem in stems]

    def metadata(skipped: Mapping[str, set[int]]) -> dict[str, Any]:
        kept = without(existing, skipped["database"], skipped["query"])
        return {"ground_truth": kept}

    return DatasetContents(
        features=photo_features(),
        splits={
            "query": photos(existing["qimlist"]),
            "database": photos(existing["imlist"]),
        },
        missing=[
            Problem(f"{stem}.jpg", str(root), "missing") for stem in sorted(lacking)
        ],
        metadata=metadata,
    )
