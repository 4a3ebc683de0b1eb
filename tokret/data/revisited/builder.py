"""`roxford5k`, `rparis6k`, `oxford5k`, `paris6k`: benchmarks as TFDS datasets.

Splits `query` and `database` with the features image and filename, in the order of the
ground truth's qimlist and imlist; `info.metadata["ground_truth"]` is the benchmark in
the Revisited format, boxes of queries included. Photos are stored as they are: how they
are shrunk is part of an evaluation.
"""

import dataclasses
import functools
from collections.abc import Collection, Sequence
from pathlib import Path

import tensorflow_datasets as tfds

from tokret.config.datasets import RevisitedConfig
from tokret.data.ground_truth import read_ground_truth
from tokret.data.preparing.dataset_specs import (
    DatasetContents,
    DatasetSpec,
    fingerprint,
)
from tokret.data.preparing.dataset_writer import open_prepared, prepare_dataset
from tokret.data.preparing.photo_processing import PhotoProcessing
from tokret.data.revisited import photo_sources
from tokret.data.revisited.photo_sources import OXFORD, PARIS, City, CitySources
from tokret.data.revisited.splits import Truth, as_mapping, benchmark_contents
from tokret.data.revisited.text_ground_truth import find_texts, read_texts, to_revisited
from tokret.errors import UserError
from tokret.io.remote.fetching import drop, fetch
from tokret.io.remote.urls import path_of, shown

OXFORD_LANDMARKS = (
    *("all_souls", "ashmolean", "balliol", "bodleian", "christ_church", "cornmarket"),
    *("hertford", "keble", "magdalen", "pitt_rivers", "radcliffe_camera"),
)
PARIS_LANDMARKS = (
    *("defense", "eiffel", "invalides", "louvre", "moulinrouge", "museedorsay"),
    *("notredame", "pantheon", "pompidou", "sacrecoeur", "triomphe"),
)


@dataclasses.dataclass(frozen=True)
class OxfordParisBenchmark:
    """A benchmark on a city's photos: of 2007/2008, or revisited in 2018."""

    name: str  # of the dataset
    city: City  # whose photos it has
    photos: int  # of the database, as published, without broken ones
    queries: int  # as published
    # of the text files of 2007/2008; none for a revisited benchmark, whose ground truth
    # is gnd_NAME.pkl or .json and names every photo
    landmarks: tuple[str, ...] = ()
    text_archive: str = ""  # the archive of the text files

    def description(self) -> str:
        """For the dataset's description."""
        if not self.landmarks:
            return "Revisited benchmark (Radenovic et al., CVPR 2018)"
        return (
            "benchmark of 2007/2008 (Philbin et al.); good is easy and ok is hard, so "
            "that Medium is its protocol"
        )

    def truth_files(self, root: Path) -> list[Path]:
        """Returns the files of the ground truth in a folder.

        Raises:
          UserError: if they are not all there.
        """
        if self.landmarks:
            return find_texts(root, self.landmarks, self.text_archive)
        names = [f"gnd_{self.name}{suffix}" for suffix in (".pkl", ".json")]
        for name in names:
            if (root / name).is_file():
                return [root / name]
        raise UserError(
            f"{root} contains no ground truth: neither {' nor '.join(names)}"
        )

    def read_truth(
        self, files: Sequence[Path], photos: Collection[str], temporary: Path
    ) -> Truth:
        """Reads the ground truth; of 2007/2008 all `photos` join its database.

        Raises:
          UserError: if it is malformed.
        """
        if not self.landmarks:
            return as_mapping(read_ground_truth(files[0]))
        return to_revisited(read_texts(files, temporary), self.landmarks, photos)

    def read_contents(
        self, sources: CitySources, files: Sequence[Path], skip_bad: bool, partial: Path
    ) -> DatasetContents:
        """Locates the photos of the ground truth.

        Raises:
          UserError: if photos of 2007/2008 are missing, which no list would reveal.
        """
        locations = sources.locations(partial)
        for name in self.city.broken:
            locations.pop(name, None)
        truth = self.read_truth(files, locations, partial)
        contents = benchmark_contents(truth, locations, sources.root)
        is_incomplete = self.landmarks and len(locations) != self.photos
        if is_incomplete and not contents.missing and not skip_bad:
            raise UserError(
                f"skip_bad: {self.name}: {sources.root} contains {len(locations):,} "
                f"photos, and {self.photos:,} were published; download the others, or "
                "skip them by this option"
            )
        return contents


BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        OxfordParisBenchmark("roxford5k", OXFORD, 4993, 70),
        OxfordParisBenchmark("rparis6k", PARIS, 6322, 70),
        OxfordParisBenchmark(
            *("oxford5k", OXFORD, 5063, 55, OXFORD_LANDMARKS, "gt_files_170407.tgz")
        ),
        OxfordParisBenchmark(
            *("paris6k", PARIS, 6392, 55, PARIS_LANDMARKS, "paris_120310.tgz")
        ),
    )
}


def prepare(
    config: RevisitedConfig, data_dir: Path, workers: int = 0
) -> tfds.core.DatasetBuilder:
    """Prepares a benchmark of Oxford or Paris, of 2007/2008 or revisited in 2018.

    `manual_dir` contains oxbuild_images.tgz, or paris_1.tgz and paris_2.tgz, or the
    blurred release (oxbuild_images-v1.tgz, paris_1-v1.tgz and paris_2-v1.tgz), or the
    photos unpacked; and gnd_NAME.pkl or .json, or for oxford5k and paris6k the text
    files (all_souls_1_query.txt and so on) or gt_files_170407.tgz or paris_120310.tgz.
    Of a URL all of these are fetched. "" opens what was prepared before.

    Of Paris 6,412 photos were published, 20 of them corrupted; those are skipped, as is
    the custom. With `skip_bad`, the numbers are no longer those of the benchmark.

    Raises:
      UserError: names what is missing, unreadable or malformed.
    """
    benchmark = BENCHMARKS[config.name]
    if not config.manual_dir:
        return open_prepared(data_dir, config.name, config.release)
    root = fetch(path_of(config.manual_dir), is_source)
    sources = photo_sources.find_sources(root, benchmark.city, config.release)
    files = benchmark.truth_files(root)
    dated = [(str(path.relative_to(root)), path) for path in [*sources.all(), *files]]
    spec = DatasetSpec(
        name=config.name,
        variant=sources.release,
        fingerprint=fingerprint(sources.release, dated),
        description=(
            f"{benchmark.description()}; photos of {sources.release} from {shown(root)}"
        ),
        processing=PhotoProcessing(),
        read_contents=functools.partial(
            benchmark.read_contents, sources, files, config.skip_bad
        ),
        notes=sources.notes,
    )
    builder = prepare_dataset(spec, data_dir, skip_bad=config.skip_bad, workers=workers)
    drop(root)  # what was fetched
    return builder


def is_source(name: str) -> bool:
    """Whether a file in a bucket may be an archive, a photo or a ground truth."""
    suffixes = (*photo_sources.SUFFIXES, ".jpg", ".jpeg", ".pkl", ".json", ".txt")
    return name.lower().endswith(suffixes)
