"""`roxford5k`, `rparis6k`, `oxford5k`, `paris6k`: benchmarks as TFDS datasets.

Splits `query` and `database` with the features image and filename, in the order of the
ground truth's qimlist and imlist; `info.metadata["ground_truth"]` is the benchmark in
the Revisited form, boxes of queries included. Photos are kept as they came: how they
are shrunk is part of an evaluation.
"""

import dataclasses
import functools
import os
from collections.abc import Sequence
from pathlib import Path

import tensorflow_datasets as tfds

from tokret.data.ground_truth import read_ground_truth
from tokret.data.preparing import engine
from tokret.data.preparing.photos import Treatment
from tokret.data.preparing.recipes import Plan, Recipe, fingerprint
from tokret.data.revisited.photos import OXFORD, PARIS, City, Sources, find_sources
from tokret.data.revisited.splits import as_mapping, plain_stem, plan_benchmark
from tokret.data.revisited.text_ground_truth import find_texts, read_texts, to_revisited
from tokret.errors import UserError

OXFORD_LANDMARKS = (
    *("all_souls", "ashmolean", "balliol", "bodleian", "christ_church", "cornmarket"),
    *("hertford", "keble", "magdalen", "pitt_rivers", "radcliffe_camera"),
)
PARIS_LANDMARKS = (
    *("defense", "eiffel", "invalides", "louvre", "moulinrouge", "museedorsay"),
    *("notredame", "pantheon", "pompidou", "sacrecoeur", "triomphe"),
)


@dataclasses.dataclass(frozen=True)
class _Revisited:
    """A benchmark of 2018: a city's photos and gnd_NAME."""

    name: str
    city: City
    photos: int  # of the database, that were published
    queries: int
    lists_all = True  # the ground truth names every photo
    description = "Revisited benchmark (Radenovic et al., CVPR 2018)"

    def truth_files(self, root: Path) -> list[Path]:
        names = [f"gnd_{self.name}{suffix}" for suffix in (".pkl", ".json")]
        for name in names:
            if (root / name).is_file():
                return [root / name]
        raise UserError(f"{root} holds no ground truth: neither {' nor '.join(names)}")

    def listed(self, files: Sequence[Path], _: Path) -> tuple[list[str], list[str]]:
        """The names of the photos and of the queries."""
        truth = read_ground_truth(files[0])
        return [plain_stem(name) for name in truth.images], [
            plain_stem(name) for name in truth.queries
        ]

    def plan(
        self, sources: Sources, files: Sequence[Path], _: bool, partial: Path
    ) -> Plan:
        truth = as_mapping(read_ground_truth(files[0]))
        return plan_benchmark(truth, sources.places(partial), sources.root)


@dataclasses.dataclass(frozen=True)
class _Old:
    """A benchmark of 2007: all of a city's photos and text files."""

    name: str
    city: City
    landmarks: tuple[str, ...]
    archive: str  # of the text files
    photos: int  # that were published, without the broken ones
    queries: int
    lists_all = False
    description = (
        "benchmark of 2007/2008 (Philbin et al.); good is easy and ok is hard, so that "
        "Medium is its protocol"
    )

    def truth_files(self, root: Path) -> list[Path]:
        return find_texts(root, self.landmarks, self.archive)

    def listed(
        self, files: Sequence[Path], partial: Path
    ) -> tuple[list[str], list[str]]:
        """The names of the photos in the ground truth, and of the queries."""
        truth = to_revisited(read_texts(files, partial), self.landmarks, ())
        return truth["imlist"], truth["qimlist"]

    def plan(
        self, sources: Sources, files: Sequence[Path], skip_bad: bool, partial: Path
    ) -> Plan:
        places = sources.places(partial)
        for name in self.city.broken:
            places.pop(name, None)
        texts = read_texts(files, partial)
        truth = to_revisited(texts, self.landmarks, places)
        plan = plan_benchmark(truth, places, sources.root)
        if len(places) != self.photos and not plan.missing and not skip_bad:
            raise UserError(
                f"{self.name}: {sources.root} holds {len(places):,} photos, and "
                f"{self.photos:,} were published; get the others, or take what is "
                "there with skip_bad"
            )
        return plan


_OXFORD_TEXTS, _PARIS_TEXTS = "gt_files_170407.tgz", "paris_120310.tgz"
BENCHMARKS: dict[str, _Revisited | _Old] = {
    "roxford5k": _Revisited("roxford5k", OXFORD, 4993, 70),
    "rparis6k": _Revisited("rparis6k", PARIS, 6322, 70),
    "oxford5k": _Old("oxford5k", OXFORD, OXFORD_LANDMARKS, _OXFORD_TEXTS, 5063, 55),
    "paris6k": _Old("paris6k", PARIS, PARIS_LANDMARKS, _PARIS_TEXTS, 6392, 55),
}


def _prepare(
    name: str,
    data_dir: str | os.PathLike[str],
    manual_dir: str,
    release: str,
    skip_bad: bool,
    workers: int,
) -> tfds.core.DatasetBuilder:
    benchmark = BENCHMARKS[name]
    if not manual_dir:
        return engine.require_prepared(Path(data_dir), name, release)
    root = Path(manual_dir).expanduser()
    sources = find_sources(root, benchmark.city, release)
    files = benchmark.truth_files(root)
    stamped = [(str(path.relative_to(root)), path) for path in files]
    recipe = Recipe(
        name=benchmark.name,
        variant=sources.release,
        fingerprint=fingerprint(sources.release, [*sources.stamped(), *stamped]),
        description=f"{benchmark.description}; photos of {sources.release} from {root}",
        treatment=Treatment(),
        plan=functools.partial(benchmark.plan, sources, files, skip_bad),
    )
    return engine.prepare(recipe, data_dir, skip_bad=skip_bad, workers=workers)


def roxford5k(
    data_dir: str | os.PathLike[str],
    *,
    manual_dir: str = "",
    release: str = "",
    skip_bad: bool = False,
    workers: int = 0,
) -> tfds.core.DatasetBuilder:
    """Prepares Revisited Oxford: 70 queries, 4,993 photos.

    Args:
      data_dir: where prepared datasets lie.
      manual_dir: the folder with oxbuild_images.tgz, or the photos unpacked, and
        gnd_roxford5k.pkl or .json; "" takes what was prepared before.
      release: of the photos, original or blurred (oxbuild_images-v1.tgz), where both
        are there.
      skip_bad: leave out photos that are missing or broken, with a warning and a list
        of them; the numbers are then no longer those of the benchmark.
      workers: processes; 0 stands for one a core.

    Raises:
      UserError: names what is missing, unreadable or malformed.
    """
    return _prepare("roxford5k", data_dir, manual_dir, release, skip_bad, workers)


def rparis6k(
    data_dir: str | os.PathLike[str],
    *,
    manual_dir: str = "",
    release: str = "",
    skip_bad: bool = False,
    workers: int = 0,
) -> tfds.core.DatasetBuilder:
    """Prepares Revisited Paris: 70 queries, 6,322 photos.

    Args:
      data_dir: where prepared datasets lie.
      manual_dir: the folder with paris_1.tgz and paris_2.tgz, or the photos unpacked,
        and gnd_rparis6k.pkl or .json; "" takes what was prepared before.
      release: of the photos, original or blurred (paris_1-v1.tgz and paris_2-v1.tgz),
        where both are there.
      skip_bad: as for roxford5k.
      workers: processes; 0 stands for one a core.

    Raises:
      UserError: names what is missing, unreadable or malformed.
    """
    return _prepare("rparis6k", data_dir, manual_dir, release, skip_bad, workers)


def oxford5k(
    data_dir: str | os.PathLike[str],
    *,
    manual_dir: str = "",
    release: str = "",
    skip_bad: bool = False,
    workers: int = 0,
) -> tfds.core.DatasetBuilder:
    """Prepares Oxford5k of 2007: 55 queries, 5,063 photos, the queries' among them.

    Args:
      data_dir: where prepared datasets lie.
      manual_dir: the folder with oxbuild_images.tgz, or the photos unpacked, and the
        text files (all_souls_1_query.txt and so on) or gt_files_170407.tgz; "" takes
        what was prepared before.
      release: as for roxford5k.
      skip_bad: as for roxford5k.
      workers: processes; 0 stands for one a core.

    Raises:
      UserError: names what is missing, unreadable or malformed.
    """
    return _prepare("oxford5k", data_dir, manual_dir, release, skip_bad, workers)


def paris6k(
    data_dir: str | os.PathLike[str],
    *,
    manual_dir: str = "",
    release: str = "",
    skip_bad: bool = False,
    workers: int = 0,
) -> tfds.core.DatasetBuilder:
    """Prepares Paris6k of 2008: 55 queries, 6,392 photos, the queries' among them.

    6,412 were published, 20 of them corrupted; those are left out, as is the custom.

    Args:
      data_dir: where prepared datasets lie.
      manual_dir: the folder with paris_1.tgz and paris_2.tgz, or the photos unpacked,
        and the text files (defense_1_query.txt and so on) or paris_120310.tgz; ""
        takes what was prepared before.
      release: as for rparis6k.
      skip_bad: as for roxford5k.
      workers: processes; 0 stands for one a core.

    Raises:
      UserError: names what is missing, unreadable or malformed.
    """
    return _prepare("paris6k", data_dir, manual_dir, release, skip_bad, workers)
