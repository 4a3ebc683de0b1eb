"""What each dataset should hold, and where its photos are: nothing is written here.

A source is a generator of the photos to examine, which notes on its way what it finds
of archives, lists and missing photos.
"""

import dataclasses
import tarfile
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tokret.data.checking.examination import Finding, Subject
from tokret.data.google_landmarks import builder as landmarks_v2
from tokret.data.google_landmarks.files import ARCHIVES, leaves, photo_number
from tokret.data.google_landmarks.lists import find, photo_name
from tokret.data.image_folder import builder as image_folder
from tokret.data.preparing.archives import members, shown
from tokret.data.preparing.folders import files_below
from tokret.data.preparing.photos import MAX_BYTES, Place
from tokret.data.revisited import builder as revisited
from tokret.data.revisited import distractors
from tokret.data.revisited.photos import find_sources, stem_of
from tokret.errors import UserError


class Count(NamedTuple):
    """How many of something there are, and should be, None where nobody says."""

    what: str
    found: int
    expected: int | None


@dataclasses.dataclass
class Notes:
    """What is noted on the way.

    Attributes:
      findings: what is wrong.
      counts: of photos, classes, archives.
    """

    findings: list[Finding] = dataclasses.field(default_factory=list)
    counts: list[Count] = dataclasses.field(default_factory=list)

    def note(self, name: str, problem: str, detail: str) -> None:
        """Notes something that is wrong."""
        self.findings.append(Finding(name, problem, detail))

    def count(self, what: str, found: int, expected: int | None = None) -> None:
        """Notes a count; one that differs from what is expected is wrong."""
        self.counts.append(Count(what, found, expected))
        if expected not in (None, found):
            self.note(
                what, "count", f"{found:,} are there, {expected:,} were published"
            )


def gldv2(
    notes: Notes, *, manual_dir: str, subset: str = "clean", exclude_ids: str = ""
) -> Iterator[Subject]:
    """Examines Google Landmarks v2: the lists, the tars and the photos in them.

    Args:
      notes: what is found.
      manual_dir: as for prepare.
      subset: clean, no_overlap or full.
      exclude_ids: a file of ids, for no_overlap.
    """
    root = Path(manual_dir).expanduser()
    sources = landmarks_v2.find_sources(root, subset, exclude_ids, "", "")
    _, listed = landmarks_v2.read_lists(sources)
    photos, classes = landmarks_v2.PUBLISHED[subset]
    notes.count("photos in the lists", len(listed.ids), photos)
    notes.count("classes", len(np.unique(listed.landmarks)), classes)
    there = np.zeros(len(listed.ids), bool)
    if sources.tars:
        notes.count("tars", len(sources.tars), ARCHIVES)
        names = {path.name for path in sources.tars}
        for name in (f"images_{i:03d}.tar" for i in range(ARCHIVES)):
            if name not in names:
                notes.note(name, "archive", f"missing in {sources.tars[0].parent}")
        found = _of_tars(sources.tars, notes)
    else:
        assert sources.tree is not None
        found = (
            (path.name, Place(str(path)))
            for folder in leaves(sources.tree)
            for path in sorted(folder.iterdir())
        )
    for name, place in found:
        photo = photo_number(name.rpartition("/")[2])
        if photo is None:
            continue
        rows, known = find(listed.ids, np.array([photo], np.uint64))
        if known[0]:
            if there[rows[0]]:
                notes.note(name, "repeated", f"again in {place.path}")
            there[rows[0]] = True
            yield Subject(f"{photo_name(photo)}.jpg", place)
    for photo in listed.ids[~there].tolist():
        notes.note(f"{photo_name(photo)}.jpg", "missing", f"in no place of {root}")


def _of_tars(tars: Iterable[Path], notes: Notes) -> Iterator[tuple[str, Place]]:
    """The files of plain tars; of a damaged one those before the damage."""
    for path in tars:
        try:
            for member in members(path):
                yield member.name, Place(str(path), member.offset, member.size)
        except (UserError, OSError) as error:
            notes.note(path.name, "archive", str(error))


def _of_streams(archives: Iterable[Path], notes: Notes) -> Iterator[tuple[str, bytes]]:
    """The files of compressed tars, read from beginning to end and not unpacked."""
    for path in archives:
        try:
            with tarfile.open(path, "r|*") as tar:
                for member in tar:
                    if not member.isreg():
                        continue
                    file = tar.extractfile(member)
                    if member.size > MAX_BYTES or file is None:
                        notes.note(path.name, "archive", f"claims {member.size} bytes")
                        break
                    yield member.name, file.read()
        except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
            words = " ".join(str(error).split()) or type(error).__name__
            notes.note(path.name, "archive", f"cut short or damaged: {words}")


def _wanted(
    found: Iterable[tuple[str, Place | bytes]],
    wanted: Iterable[str],
    notes: Notes,
    root: Path,
) -> Iterator[Subject]:
    """Those of some photos that are wanted; notes those that are not there."""
    missing = dict.fromkeys(wanted)
    every = set(missing)
    for name, content in found:
        if name not in every:
            continue
        if name not in missing:
            notes.note(shown(name), "repeated", "is there twice")
        missing.pop(name, None)
        yield Subject(name, content)
    for name in missing:
        notes.note(shown(name), "missing", f"in no place of {root}")


def benchmark(
    name: str, notes: Notes, *, manual_dir: str, release: str = ""
) -> Iterator[Subject]:
    """Examines a benchmark: its ground truth, its archives and the photos in them.

    Args:
      name: of the benchmark.
      notes: what is found.
      manual_dir: as for prepare.
      release: original or blurred, where both are there.
    """
    root = Path(manual_dir).expanduser()
    which = revisited.BENCHMARKS[name]
    sources = find_sources(root, which.city, release)
    with tempfile.TemporaryDirectory() as folder:  # text files may be in an archive
        images, queries = which.listed(which.truth_files(root), Path(folder))
    if which.lists_all:
        notes.count("photos in the ground truth", len(images), which.photos)
    notes.count("queries", len(queries), which.queries)
    wanted = dict.fromkeys([*images, *queries])
    if sources.files:
        found: Iterable[tuple[str, Place | bytes]] = (
            (path.name, Place(str(path))) for path in sources.files
        )
    else:
        found = _of_streams(sources.archives, notes)
    stems = (
        (stem, content)
        for file_name, content in found
        if (stem := stem_of(file_name.rpartition("/")[2], which.city))
        and stem not in which.city.broken
    )
    if which.lists_all:
        yield from _wanted(stems, wanted, notes, root)
        return
    # The texts name few of the photos: all that there are belong to the database.
    seen: set[str] = set()
    for stem, content in stems:
        seen.add(stem)
        yield Subject(stem, content)
    notes.count("photos", len(seen), which.photos)
    for stem in wanted:
        if stem not in seen:
            notes.note(stem, "missing", f"in no place of {root}")


def revisitop1m(notes: Notes, *, manual_dir: str) -> Iterator[Subject]:
    """Examines the distractors: their list, the archives and the photos in them.

    Args:
      notes: what is found.
      manual_dir: as for prepare.
    """
    root = Path(manual_dir).expanduser()
    names = distractors.read_list(distractors.find_list(root))
    notes.count("photos in the list", len(names), distractors.PUBLISHED)
    archives = distractors.find_archives(root)
    found: Iterable[tuple[str, Place | bytes]]
    if archives:
        notes.count("archives", len(archives), distractors.ARCHIVES)
        numbers = {distractors.archive_number(path.name) for path in archives}
        for number in range(1, distractors.ARCHIVES + 1):
            if number not in numbers:
                name = f"{distractors.NAME}.{number}.tar.gz"
                notes.note(name, "archive", f"missing in {archives[0].parent}")
        found = _of_streams(archives, notes)
    else:
        folder = distractors.photo_folder(root)
        found = (
            (path.relative_to(folder).as_posix(), Place(str(path)))
            for path in files_below(folder)
        )
    plain = ((distractors.plain_name(name), content) for name, content in found)
    yield from _wanted(plain, names, notes, root)


def folder(notes: Notes, *, root: str = "", table: str = "") -> Iterator[Subject]:
    """Examines photos of your own, in class folders or of a table.

    Args:
      notes: what is found.
      root: as for prepare.
      table: as for prepare.
    """
    _, found = image_folder.find(root, table)
    notes.count("photos", len(found.photos))
    notes.count("classes", len({photo.label for photo in found.photos}))
    for photo in found.photos:
        yield Subject(photo.name, Place(str(photo.path)))
