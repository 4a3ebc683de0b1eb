"""`synthetic_landmarks`: rendered photos of invented buildings, as a TFDS dataset.

Nothing is downloaded: training photos, a benchmark in the Revisited format and its
distractors come from a seed. Every landmark and every photo has its own random
generator, so that neither the counts nor the number of threads change a photo.
"""

import contextlib
import hashlib
import io
import itertools
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from tokret.config.datasets import SyntheticLandmarksConfig
from tokret.data.synthetic_landmarks.photo_rendering import Photo
from tokret.data.synthetic_landmarks.photo_series import (
    BENCHMARK,
    DATABASE,
    DISTRACTOR,
    QUERY,
    THIRD,
    TRAIN,
    TRAINED,
    VALIDATION,
    Series,
    in_order,
    take_series,
)
from tokret.data.synthetic_landmarks.relevance import label_photos

PHOTOS_PER_DISTRACTOR = 2

_LOCK = threading.Lock()  # standard output and TFDS's bars belong to the process


def _settings(config: SyntheticLandmarksConfig) -> dict[str, int]:
    """The fields that decide the photos."""
    settings = asdict(config)
    del settings["name"]
    return settings


def _config_name(config: SyntheticLandmarksConfig) -> str:
    """A name for a folder: readable, and different for different settings."""
    digest = hashlib.sha256(repr(_settings(config)).encode()).hexdigest()[:8]
    return f"{config.landmarks}x{config.photos}-{config.longest_side}px-{digest}"


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

    VERSION = tfds.core.Version("1.0.0")

    def __init__(
        self, *, counts: SyntheticLandmarksConfig, threads: int, **kwargs: Any
    ):
        self._counts = counts
        self._threads = threads
        self._queries: list[list[Photo]] = []
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
        # disable=None: no bar where standard error is not a terminal.
        total = _total(self._counts)
        self._bar = tqdm(total=total, desc=self.name, unit="photo", disable=None)
        splits = {"train": self._labelled(TRAIN, self._counts.photos)}
        if self._counts.validation_photos:
            splits["validation"] = self._labelled(
                VALIDATION, self._counts.validation_photos
            )
        # TFDS writes them in this order: the database's labels need the queries.
        return splits | {"query": self._query(), "database": self._database()}

    def _generate_examples(self) -> None:
        raise AssertionError("the splits have their own generators")

    def _series(
        self, group: int, series: int, landmarks: int, photos: int
    ) -> Iterator[tuple[int, list[Photo]]]:
        counts = self._counts
        tasks = (
            Series(counts.seed, group, landmark, series, photos, counts.longest_side)
            for landmark in range(landmarks)
        )
        for landmark, taken in enumerate(in_order(take_series, tasks, self._threads)):
            self._bar.update(len(taken))
            yield landmark, taken

    def _labelled(self, series: int, photos: int) -> Iterator[Any]:
        word = {TRAIN: "photo", VALIDATION: "validation"}[series]
        landmarks = self._counts.landmarks
        keys = itertools.count()
        for landmark, taken in self._series(TRAINED, series, landmarks, photos):
            for number, photo in enumerate(taken):
                name = f"landmark_{landmark:04d}_{word}_{number:03d}.jpg"
                yield next(keys), _example(photo, name, landmark)

    def _query(self) -> Iterator[Any]:
        counts = self._counts
        self._queries = []
        keys = itertools.count()
        landmarks, photos = counts.benchmark_landmarks, counts.queries_per_landmark
        for landmark, taken in self._series(BENCHMARK, QUERY, landmarks, photos):
            self._queries.append(taken)
            for number, photo in enumerate(taken):
                yield next(keys), _example(photo, _query_name(landmark, number), -1)

    def _database(self) -> Iterator[Any]:
        counts = self._counts
        names: list[str] = []
        gnd: list[dict[str, Any]] = []
        landmarks, photos = counts.benchmark_landmarks, counts.database_photos
        for landmark, taken in self._series(BENCHMARK, DATABASE, landmarks, photos):
            shown = [(len(names) + i, p.appearance) for i, p in enumerate(taken)]
            for query in self._queries[landmark]:
                lists = label_photos(query.appearance, shown)
                gnd.append({"bbx": list(query.box), **lists})
            for number, photo in enumerate(taken):
                names.append(f"building_{landmark:04d}_photo_{number:03d}.jpg")
                yield len(names) - 1, _example(photo, names[-1], -1)
        groups = -(-counts.distractors // PHOTOS_PER_DISTRACTOR)
        tasks = self._series(THIRD, DISTRACTOR, groups, PHOTOS_PER_DISTRACTOR)
        others = itertools.chain.from_iterable(taken for _, taken in tasks)
        for number, photo in enumerate(itertools.islice(others, counts.distractors)):
            names.append(f"distractor_{number:06d}.jpg")
            yield len(names) - 1, _example(photo, names[-1], -1)
        qimlist = [
            _query_name(landmark, number)
            for landmark in range(landmarks)
            for number in range(counts.queries_per_landmark)
        ]
        truth = {"imlist": names, "qimlist": qimlist, "gnd": gnd}
        self.info.metadata["ground_truth"] = truth
        self._bar.close()


def _query_name(landmark: int, number: int) -> str:
    return f"building_{landmark:04d}_query_{number:03d}.jpg"


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
    fields = ", ".join(f"{name}={value}" for name, value in _settings(config).items())
    builder = SyntheticLandmarks(
        counts=config,
        threads=workers or os.cpu_count() or 1,
        data_dir=os.fspath(data_dir),
        config=tfds.core.BuilderConfig(
            name=_config_name(config), version="1.0.0", description=f"Counts({fields})"
        ),
    )
    if not builder.data_path.exists():
        _render(builder, _total(config))
    return builder


def _render(builder: SyntheticLandmarks, photos: int) -> None:
    """Writes the dataset, without TFDS's own messages and bars for downloads."""
    line = f"preparing {builder.name}: {photos} photos into {builder.data_path}"
    print(line, file=sys.stderr, flush=True)  # noqa: T201
    with _LOCK, contextlib.redirect_stdout(io.StringIO()):
        tfds.display_progress_bar(enable=False)
        try:
            builder.download_and_prepare()
        finally:
            tfds.display_progress_bar(enable=True)
