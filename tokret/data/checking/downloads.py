"""Downloaded files of each dataset: what should exist, and the photos to check.

Each function yields photos, and adds to a report counts and defects of archives, lists
and missing photos. Nothing is written.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np

from tokret.config.datasets import (
    DistractorsConfig,
    GoogleLandmarksConfig,
    ImageFolderConfig,
    RevisitedConfig,
)
from tokret.data.checking.photo_checks import PhotoToCheck
from tokret.data.checking.report import CheckReport
from tokret.data.google_landmarks import builder as google_landmarks
from tokret.data.google_landmarks.photo_lists import find, photo_name
from tokret.data.google_landmarks.photo_locations import (
    ARCHIVES,
    photo_number,
    tree_folders,
)
from tokret.data.image_folder import builder as folder_builder
from tokret.data.image_folder.photo_lists import Photo
from tokret.data.preparing.photo_files import MAX_BYTES, PhotoLocation, PhotoReader
from tokret.data.preparing.source_files import here
from tokret.data.preparing.tar_members import locate_members, read_members
from tokret.data.revisited import builder as revisited
from tokret.data.revisited import distractors
from tokret.data.revisited.photo_sources import find_sources, stem_of
from tokret.data.revisited.splits import plain_stem
from tokret.errors import UserError
from tokret.io.remote.fetching import fetch
from tokret.io.remote.objects import read_object
from tokret.io.remote.urls import path_of, url_of
from tokret.names import printable

TOGETHER = 32  # photos that are fetched from a bucket at a time
T = TypeVar("T")
NamedPhoto = tuple[str, PhotoLocation | bytes]


def gldv2(config: GoogleLandmarksConfig, report: CheckReport) -> Iterator[PhotoToCheck]:
    """Checks Google Landmarks v2: the lists, the tars and the photos in them."""
    sources = google_landmarks.find_sources(config)
    _, listed = google_landmarks.read_lists(sources)
    photos, classes = google_landmarks.PUBLISHED[config.subset]
    report.add_count("photos in the lists", len(listed.ids), photos)
    report.add_count("classes", len(np.unique(listed.landmarks)), classes)
    exists = np.zeros(len(listed.ids), bool)
    if sources.tars:
        report.add_count("tars", len(sources.tars), ARCHIVES)
        names = {path.name for path in sources.tars}
        for name in (f"images_{i:03d}.tar" for i in range(ARCHIVES)):
            if name not in names:
                missing_in = f"missing in {sources.tars[0].parent}"
                report.add_defect(name, "archive", missing_in)
        read = _fetched_members if url_of(sources.root) else locate_members
        found: Iterable[NamedPhoto] = _members_of_archives(sources.tars, report, read)
    else:
        assert sources.tree is not None
        found = (
            (path.name, PhotoLocation(str(path)))
            for folder in tree_folders(sources.tree)
            for path in sorted(folder.iterdir())
        )
    for name, content in found:
        photo = photo_number(name.rpartition("/")[2])
        if photo is None:
            continue
        rows, known = find(listed.ids, np.array([photo], np.uint64))
        if known[0]:
            if exists[rows[0]]:
                report.add_defect(name, "repeated", _again(content))
            exists[rows[0]] = True
            yield PhotoToCheck(f"{photo_name(photo)}.jpg", content)
    missing = map(photo_name, listed.ids[~exists].tolist())
    _add_missing((f"{name}.jpg" for name in missing), report, sources.root)


def _again(content: PhotoLocation | bytes) -> str:
    if isinstance(content, bytes):
        return "exists twice"
    return f"again in {content.path}"


def _fetched_members(path: Path) -> Iterator[tuple[str, bytes]]:
    """The files of a tar in a bucket, which is fetched, and dropped after the last."""
    with here(path), PhotoReader() as reader:
        for name, location in locate_members(path):
            yield name, reader.read(location)


def _members_of_archives(
    archives: Iterable[Path],
    report: CheckReport,
    read: Callable[[Path], Iterator[tuple[str, T]]],
) -> Iterator[tuple[str, T]]:
    """The files that `read` lists in tars; of a damaged one those before the damage."""
    for path in archives:
        try:
            yield from read(path)
        except (UserError, OSError) as error:
            report.add_defect(path.name, "archive", str(error))


def _listed_photos(
    found: Iterable[NamedPhoto],
    listed: Iterable[str],
    report: CheckReport,
    root: Path,
) -> Iterator[PhotoToCheck]:
    """Those of the found photos that are listed; reports those that are missing."""
    missing = dict.fromkeys(listed)
    every = set(missing)
    for name, content in found:
        if name not in every:
            continue
        if name not in missing:
            report.add_defect(printable(name, 80), "repeated", "exists twice")
        missing.pop(name, None)
        yield PhotoToCheck(name, content)
    _add_missing(map(printable, missing), report, root)


def _add_missing(names: Iterable[str], report: CheckReport, root: Path) -> None:
    for name in names:
        report.add_defect(name, "missing", f"nowhere in {root}")


def oxford_or_paris(
    config: RevisitedConfig, report: CheckReport
) -> Iterator[PhotoToCheck]:
    """Checks a benchmark: its ground truth, its archives and the photos in them."""
    root = fetch(path_of(config.manual_dir), revisited.is_source)
    benchmark = revisited.BENCHMARKS[config.name]
    city = benchmark.city
    sources = find_sources(root, city, config.release)
    report.notes += sources.notes
    with tempfile.TemporaryDirectory() as folder:  # text files may be in an archive
        truth = benchmark.read_truth(benchmark.truth_files(root), (), Path(folder))
    images, queries = (
        [plain_stem(name) for name in truth[key]] for key in ("imlist", "qimlist")
    )
    if not benchmark.landmarks:
        report.add_count("photos in the ground truth", len(images), benchmark.photos)
    report.add_count("queries", len(queries), benchmark.queries)
    found: Iterable[NamedPhoto] = _members_of_archives(
        sources.archives, report, read_members
    )
    if sources.files:
        found = ((path.name, PhotoLocation(str(path))) for path in sources.files)
    photos = (
        (stem, content)
        for file_name, content in found
        if (stem := stem_of(file_name, city)) and stem not in city.broken
    )
    listed = dict.fromkeys([*images, *queries])
    if not benchmark.landmarks:
        yield from _listed_photos(photos, listed, report, root)
        return
    # The text files name few of the photos: all of them are in the database.
    seen: set[str] = set()
    for stem, content in photos:
        seen.add(stem)
        yield PhotoToCheck(stem, content)
    report.add_count("photos", len(seen), benchmark.photos)
    _add_missing((stem for stem in listed if stem not in seen), report, root)


def revisitop1m(
    config: DistractorsConfig, report: CheckReport
) -> Iterator[PhotoToCheck]:
    """Checks the distractors: their list, the archives and the photos in them."""
    root = Path(config.manual_dir).expanduser()
    names = distractors.read_list(distractors.find_list(root))
    report.add_count("photos in the list", len(names), distractors.PUBLISHED)
    archives = distractors.find_archives(root)
    found: Iterable[NamedPhoto] = distractors.unpacked_photos(root)
    if archives:
        report.add_count("archives", len(archives), distractors.ARCHIVES)
        numbers = {distractors.archive_number(path.name) for path in archives}
        for number in range(1, distractors.ARCHIVES + 1):
            if number not in numbers:
                name = f"{distractors.NAME}.{number}.tar.gz"
                missing_in = f"missing in {archives[0].parent}"
                report.add_defect(name, "archive", missing_in)
        found = _members_of_archives(archives, report, read_members)
    plain = ((distractors.plain_name(name), content) for name, content in found)
    yield from _listed_photos(plain, names, report, root)


def image_folder(
    config: ImageFolderConfig, report: CheckReport
) -> Iterator[PhotoToCheck]:
    """Checks photos of any folder, in class folders or of a table."""
    _, found = folder_builder.list_photos(config.root, config.table)
    report.notes += found.notes
    report.add_count("photos", len(found.photos))
    report.add_count("classes", len({photo.label for photo in found.photos}))
    if not found.files.listed:
        for photo in found.photos:
            yield PhotoToCheck(photo.name, PhotoLocation(str(photo.path)))
        return
    with ThreadPoolExecutor(TOGETHER) as threads:
        for first in range(0, len(found.photos), TOGETHER):
            yield from threads.map(_fetch, found.photos[first : first + TOGETHER])


def _fetch(photo: Photo) -> PhotoToCheck:
    """Reads a photo from a bucket; what is too large for a photo is not one."""
    url = str(url_of(photo.path))
    try:
        return PhotoToCheck(photo.name, read_object(url, MAX_BYTES))
    except FileNotFoundError:
        return PhotoToCheck(photo.name, PhotoLocation(str(photo.path)))  # missing
