"""Whatever happens to a folder and its index, it becomes that of a fresh one."""

import os
import shutil

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.search import kill_points
from tests.search.contents import read_catalogue
from tokret.search.catalogue import open_catalogue
from tokret.search.index_changes import add_files, remove_photos
from tokret.search.index_writer import Limits
from tokret.search.indexing import update_index
from tokret.search.part_stores import open_parts

NAMES = ["a.png", "b.png", "c/a.png", "c/b.png", "c/d/a.png"]
EXTRACTOR = kill_points.extractor(1.0)
LIMITS = Limits(rows=2, seconds=0.0, small=1)
# A change of the folder or of the index: what, a photo, and another one or a content.
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["write", "write", "copy", "move", "unlink", "touch", "break"]
            + ["update", "update", "add", "remove", "readd"]
        ),
        st.sampled_from(NAMES),
        st.integers(0, 4),
    ),
    min_size=1,
    max_size=12,
)


class Library:
    """A folder, its index."""

    def __init__(self, folder):
        self.root, self.index = folder / "photos", folder / "index"
        kill_points.write_photo(self.root / "always.png", 99)
        self.update()

    def update(self, **options):
        update_index(
            self.root, self.index, lambda copy: EXTRACTOR, limits=LIMITS, **options
        )

    def step(self, kind, name, number):
        path, other = self.root / name, self.root / NAMES[number]
        if kind == "write":
            kill_points.write_photo(path, number % 3)
        elif kind in ("update", "readd"):
            self.update(readd=kind == "readd")
        elif path.is_file():
            getattr(self, f"_{kind}")(path, other)

    def _copy(self, path, other):
        other.parent.mkdir(parents=True, exist_ok=True)
        if other != path:
            shutil.copy(path, other)

    def _move(self, path, other):
        other.parent.mkdir(parents=True, exist_ok=True)
        path.replace(other)

    def _unlink(self, path, other):
        path.unlink()

    def _touch(self, path, other):
        os.utime(path, (1, 1))

    def _break(self, path, other):
        path.write_bytes(b"<html>")

    def _add(self, path, other):
        add_files(self.index, [path], lambda copy: EXTRACTOR, limits=LIMITS)

    def _remove(self, path, other):
        with open_catalogue(self.index) as catalogue:
            entry = catalogue.photo(path.relative_to(self.root).as_posix())
        if entry is not None and entry.part:
            remove_photos(self.index, [entry.digest])


def state(index):
    """What an index answers with: of each photo its descriptor, or its error."""
    found = read_catalogue(index)
    with open_catalogue(index) as catalogue:
        stores, damaged = open_parts(index, catalogue)
        folders = catalogue.folders(), catalogue.labels()
    assert not damaged and set(os.listdir(index / "parts")) == stores.keys()
    photos = {
        name: (entry.stamp, entry.error)
        + (
            (entry.digest, *stores[entry.part].descriptors[entry.row])
            if entry.part
            else ()
        )
        for name, entry in found.photos.items()
        if not entry.is_removed
    }
    return photos, folders


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS)
def test_random_changes_end_as_a_fresh_index(tmp_path_factory, steps):
    library = Library(tmp_path_factory.mktemp("library"))
    for kind, name, number in steps:
        library.step(kind, name, number)
        read_catalogue(library.index)  # it agrees with itself at any time
    library.update(rehash=True)
    with open_catalogue(library.index) as catalogue:
        removed = [entry.name for entry in catalogue.removed()]
    fresh = library.root.with_name("fresh")
    for name in removed:
        (library.root / name).unlink()
    update_index(library.root, fresh, lambda copy: EXTRACTOR, limits=LIMITS)
    assert state(library.index) == state(fresh)
