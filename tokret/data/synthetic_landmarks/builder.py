"""`synthetic_landmarks`: rendered photos of invented buildings, as a TFDS dataset.

Nothing is downloaded: training photos, a benchmark in the Revisited format and its
distractors come from a seed. Every landmark and every photo has its own random
generator, so that neither the counts nor the number of threads change a photo.
"""

import collections
import contextlib
import hashlib
import io
import itertools
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from tokret.config.datasets import SyntheticLandmarksConfig
from tokret.data.preparing.dataset_digests import write_digests
from tokret.data.preparing.destinations import is_prepared, upload_dataset
from tokret.data.preparing.tfds_layout import VERSION, open_dataset
from tokret.data.synthetic_landmarks.photo_rendering import Photo
from tokret.data.synthetic_landmarks.photo_series import (
    DATABASE,
    DISTRACTOR,
    QUERY,
    TRAIN,
    VALIDATION,
    Series,
    in_order,
    take_series,
)
from tokret.data.synthetic_landmarks.relevance import Appearance, label_photos
from tokret.io.drafts import make_draft
from tokret.io.remote.urls import shown, url_of
from tokret.runtime.progress import progress_bar

PHOTOS_PER_DISTRACTOR = 2
_NAMES = {
    TRAIN: "landmark_{:04d}_photo_{:03d}.jpg",
    VALIDATION: "landmark_{:04d}_validation_{:03d}.jpg",
    QUERY: "building_{:04d}_query_{:03d}.jpg",
    DATABASE: "building_{:04d}_photo_{:03d}.jpg",
    DISTRACTOR: "distractor_{:06d}.jpg",
}

_LOCK = threading.Lock()  # standard output and TFDS's bars belong to the process


def _total(config: SyntheticLandmarksConfig) -> int:
    """Photos in all splits together."""
    each = config.queries_per_landmark + config.database_photos
    labelled = config.landmarks * (config.photos + config.validation_photos)
    return labelled + config.benchmark_landmarks * each + config.distractors


class SyntheticLandmarks(tfds.core.GeneratorBasedBuilder):
    """Splits train, validation, query and database, all with the same features.

    `label` is the landmark's number in train and validation, and -1 (none) in query and
    database; `bbox` is x0, y0, x1, y1 in pixels around the visible part of the
    landmark. `info.metadata["ground_truth"]` is the benchmark in the Revisited format.
    """

    VERSION = tfds.core.Version(VERSION)

    def __init__(
        self, *, counts: SyntheticLandmarksConfig, threads: int, **kwargs: Any
    ):
        self._counts = counts
        self._threads = threads
        self._queries: list[tuple[int, str, Photo]] = []
        super().__init__(file_format="array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(
                    shape=(None, None, 3), encoding_format="jpeg"
                ),
                "label": tfds.features.ClassLabel(num_classes=self._counts.landmarks),
                "filename": tfds.features.Text(),
                "bbox": tfds.features.Tensor(shape=(4,), dtype=np.float32),
            }
        )
        return tfds.core.DatasetInfo(
            builder=self,
            features=features,
            metadata=tfds.core.MetadataDict(),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager
        total = _total(self._counts)
        self._bar = progress_bar(total=total, desc=self.name, unit="photo")
        splits = {"train": self._labelled(TRAIN, self._counts.photos)}
        if self._counts.validation_photos:
            splits["validation"] = self._labelled(
                VALIDATION, self._counts.validation_photos
            )
        # TFDS writes them in this order: the database's labels need the queries.
        return splits | {"query": self._query(), "database": self._database()}

    def _generate_examples(self) -> None:
        raise AssertionError("the splits have their own generators")

    def _rendered(
        self, series: int, landmarks: int, photos: int
    ) -> Iterator[tuple[int, str, Photo]]:
        """Yields a series' photos, each with its landmark and its name."""
        counts = self._counts
        tasks = (
            Series(counts.seed, landmark, series, photos, counts.longest_side)
            for landmark in range(landmarks)
        )
        for landmark, taken in enumerate(in_order(take_series, tasks, self._threads)):
            self._bar.update(len(taken))
            for number, photo in enumerate(taken):
                yield landmark, _NAMES[series].format(landmark, number), photo

    def _labelled(self, series: int, photos: int) -> Iterator[Any]:
        rendered = self._rendered(series, self._counts.landmarks, photos)
        for key, (landmark, name, photo) in enumerate(rendered):
            yield key, _example(photo, name, landmark)

    def _query(self) -> Iterator[Any]:
        counts, self._queries = self._counts, []
        landmarks, photos = counts.benchmark_landmarks, counts.queries_per_landmark
        for key, query in enumerate(self._rendered(QUERY, landmarks, photos)):
            self._queries.append(query)
            yield key, _example(query[2], query[1], -1)

    def _database(self) -> Iterator[Any]:
        counts = self._counts
        names: list[str] = []
        shown: dict[int, list[tuple[int, Appearance]]] = collections.defaultdict(list)
        landmarks, photos = counts.benchmark_landmarks, counts.database_photos
        for landmark, name, photo in self._rendered(DATABASE, landmarks, photos):
            shown[landmark].append((len(names), photo.appearance))
            names.append(name)
            yield len(names) - 1, _example(photo, name, -1)
        groups = -(-counts.distractors // PHOTOS_PER_DISTRACTOR)
        others = self._rendered(DISTRACTOR, groups, PHOTOS_PER_DISTRACTOR)
        for number, (*_, photo) in enumerate(
            itertools.islice(others, counts.distractors)
        ):
            names.append(_NAMES[DISTRACTOR].format(number))
            yield len(names) - 1, _example(photo, names[-1], -1)
        self.info.metadata["ground_truth"] = {
            "imlist": names,
            "qimlist": [name for _, name, _ in self._queries],
            "gnd": [
                {"bbx": list(query.box)}
                | label_photos(query.appearance, shown[landmark])
                for landmark, _, query in self._queries
            ],
        }
        self._bar.close()


def _example(photo: Photo, name: str, label: int) -> dict[str, Any]:
    return {
        "image": photo.jpeg,
        "label": label,
        "filename": name,
        "bbox": np.array(photo.box, np.float32),
    }


def prepare(
    config: SyntheticLandmarksConfig, data_dir: Path, workers: int = 0
) -> tfds.core.DatasetBuilder:
    """Renders the dataset, unless it exists with the same settings."""
    settings = asdict(config)
    del settings["name"]
    digest = hashlib.sha256(repr(settings).encode()).hexdigest()[:8]
    size = f"{config.landmarks}x{config.photos}-{config.longest_side}px"
    fields = ", ".join(f"{name}={value}" for name, value in settings.items())
    name = f"{size}-{digest}"
    final = data_dir / "synthetic_landmarks" / name / VERSION
    with _LOCK:
        if not is_prepared(final):
            tfds_config = tfds.core.BuilderConfig(
                name=name, version=VERSION, description=f"Counts({fields})"
            )
            _render(config, tfds_config, final, workers or os.cpu_count() or 1)
    return open_dataset(final)


def _render(
    counts: SyntheticLandmarksConfig,
    config: tfds.core.BuilderConfig,
    final: Path,
    threads: int,
) -> None:
    """Writes the dataset, without TFDS's own messages and bars for downloads."""
    name, place = final.parents[1].name, shown(final)
    line = f"preparing {name}: {_total(counts)} photos into {place}"
    print(line, file=sys.stderr, flush=True)  # noqa: T201
    final.parent.mkdir(parents=True, exist_ok=True)
    draft = make_draft(final)
    try:
        builder = SyntheticLandmarks(
            counts=counts, threads=threads, data_dir=os.fspath(draft), config=config
        )
        with contextlib.redirect_stdout(io.StringIO()):
            tfds.display_progress_bar(enable=False)
            try:
                builder.download_and_prepare()
            finally:
                tfds.display_progress_bar(enable=True)
        write_digests(Path(builder.data_path), {})
        if url_of(final):
            upload_dataset(Path(builder.data_path), final)
            return
        try:
            os.rename(builder.data_path, final)
        except OSError:
            if not final.exists():  # where another process was first
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
