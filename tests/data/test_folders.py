"""One walk lists the photos of all commands: what it lists, skips and counts."""

import os

import pytest

from tokret.data.folders import PhotoWalk
from tokret.data.photo_formats import SUFFIXES

TAKEN = (
    "a/Screenshot at 1.01.11\u202fAM.png",
    "a/deeper/b.JPEG",
    "caf\u00e9\u00a0bar/\u0645\u06cc\u200c\u0634\u0648\u062f.webp",
    "c.bmp",
)
HIDDEN = (
    ".hidden.jpg",
    "a/._b.jpg",
    ".ipynb_checkpoints/a-checkpoint.jpg",
    "a/.trash/b.jpg",
    "a/@eaDir/b.jpg/SYNOPHOTO_THUMB_M.jpg",
    "__MACOSX/a/b.jpg",
)


@pytest.fixture
def write(tmp_path):
    def to(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")

    return to


def listed(walk):
    return [path.relative_to(walk.root).as_posix() for path in walk.photos()]


def test_hidden_files_and_folders_are_skipped_and_counted(write, tmp_path):
    write(*TAKEN, *HIDDEN)
    walk = PhotoWalk(tmp_path)
    assert sorted(listed(walk)) == sorted(TAKEN)
    (note,) = walk.notes()
    assert note.startswith("6 hidden files and folders skipped: ")
    for name in (".hidden.jpg", ".ipynb_checkpoints", "a/@eaDir", "and 1 more"):
        assert name in note


def test_the_root_itself_may_be_hidden(write, tmp_path):
    write(".cache/a/b.jpg")
    assert listed(PhotoWalk(tmp_path / ".cache")) == ["a/b.jpg"]


def test_other_files_are_counted_by_suffix(write, tmp_path):
    write("a.jpg", "b.MP4", "c.mp4", "README", "e.tar.gz")
    walk = PhotoWalk(tmp_path)
    assert listed(walk) == ["a.jpg"]
    assert walk.notes() == [
        "4 files skipped, not photos by their suffix: .mp4 2, no suffix 1, .gz 1"
    ]


def test_names_of_several_lines_are_skipped_and_escaped(write, tmp_path):
    write("a/two\nlines.jpg", "folder\x1b[31m/a.jpg", os.fsdecode(b"a/\xff.jpg"))
    walk = PhotoWalk(tmp_path)
    assert listed(walk) == []
    assert walk.notes() == [
        "3 names skipped that are not text of one line: folder\\x1b[31m, "
        "a/two\\nlines.jpg, a/\\udcff.jpg"
    ]


def test_an_index_of_photos_is_left_out(write, tmp_path):
    write("a.jpg", "index/catalogue.sqlite", "index/.lock", "index/parts/0/x.npy")
    write("other/catalogue.sqlite", "other/b.jpg")
    walk = PhotoWalk(tmp_path)
    assert listed(walk) == ["a.jpg", "other/b.jpg"]
    assert walk.notes() == ["1 file skipped, not photos by their suffix: .sqlite 1"]
    assert listed(PhotoWalk(tmp_path / "index")) == []


def test_all_formats_have_a_suffix_in_lower_case():
    assert all(suffix == suffix.lower() for suffix in SUFFIXES)
