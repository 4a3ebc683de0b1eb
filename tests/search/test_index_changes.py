"""Photos that are added to an index, or removed, without an update from its folder."""

import os
import shutil

import pytest

from tests.search.contents import read_catalogue
from tests.search.queries import query_index
from tokret.errors import UserError
from tokret.io.file_locks import held
from tokret.search import index_changes
from tokret.search.catalogue import FILE
from tokret.search.index_changes import add_files, remove_photos
from tokret.search.indexing import update_index
from tokret.search.photos import read_digest


def digest_of(path):
    digest = read_digest(path)
    assert digest is not None
    return digest


@pytest.fixture
def index(photos, tmp_path, load):
    update_index(photos, tmp_path / "index", load)
    return tmp_path / "index"


@pytest.fixture
def new(photos, jpeg):
    """A photo that is in the folder, but not in the index."""
    (photos / "lakes").mkdir()
    (photos / "lakes" / "new.jpg").write_bytes(jpeg(seed=51, size=(48, 40)))
    return "lakes/new.jpg"


def test_a_photo_is_added_and_an_update_has_nothing_to_do(index, photos, load, new):
    added = add_files(index, [new], load)
    digest = digest_of(photos / new)
    assert (added.new, added.known, added.bad) == (1, 0, {})
    assert added.ids == {new: digest}
    before = (index / FILE).read_bytes()
    again = add_files(index, [photos / new, new], load)
    assert (again.new, again.ids) == (0, {new: digest})
    change = update_index(photos, index, load)
    assert (change.photos, change.new, change.known) == (10, 0, 0)
    assert (index / FILE).read_bytes() == before
    hits = query_index(index, photos / new, None, 1, load).hits
    assert hits[0].name == new


def test_an_addition_reads_only_its_photos(index, photos, load, new, monkeypatch):
    for path in photos.rglob("*.jpg"):
        if path.name != "new.jpg":
            path.unlink()

    def refuse(*_):
        raise AssertionError("the whole index was read")

    monkeypatch.setattr("tokret.search.catalogue.Catalogue.entries", refuse)
    monkeypatch.setattr("tokret.search.part_stores.open_parts", refuse)
    assert add_files(index, [new], load).new == 1
    remove_photos(index, [digest_of(photos / new)])
    monkeypatch.undo()
    assert len(read_catalogue(index).photos) == 10


def test_a_changed_photo_a_copy_and_a_bad_one(index, photos, load, new, jpeg):
    (photos / "sea" / "1.jpg").write_bytes(jpeg(seed=70, size=(48, 40)))
    shutil.copy(photos / "sea" / "5.jpg", photos / "copy.jpg")
    (photos / "bad.jpg").write_bytes(b"<html>")
    added = add_files(index, ["sea/1.jpg", "copy.jpg", "bad.jpg"], load)
    assert (added.new, added.known) == (1, 1)
    assert added.bad.keys() == {"bad.jpg"} and "bad.jpg" not in added.ids
    found = read_catalogue(index).photos
    assert "bad.jpg" not in found
    assert found["copy.jpg"].row == found["sea/5.jpg"].row
    assert found["sea/1.jpg"].digest == digest_of(photos / "sea" / "1.jpg")
    change = update_index(photos, index, load)
    assert (change.photos, change.new, change.known) == (11, 1, 0)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("none.jpg", "none.jpg: missing, or no file"),
        ("sea", "sea is not indexed: its name is not that of a photo"),
        ("../other.jpg", "other.jpg is not below .*my photos"),
        ("/etc/passwd", "/etc/passwd is not below"),
        (".", "is not below"),
        (".hidden/1.jpg", "is not indexed"),
        ("@eaDir/1.jpg", "is not indexed"),
        ("list.csv", "is not indexed"),
        ("two\nlines.jpg", "is not indexed"),
        ("folder.jpg", "missing, or no file"),
    ],
)
def test_what_an_update_would_not_index_is_refused(index, photos, load, path, message):
    (photos / "folder.jpg").mkdir()
    before = (index / FILE).read_bytes()
    with pytest.raises(UserError, match=message):
        add_files(index, ["sea/1.jpg", path], load)
    assert (index / FILE).read_bytes() == before


def test_a_removed_photo_stays_out_until_it_is_taken_in_again(index, photos, load):
    shutil.copy(photos / "sea" / "1.jpg", photos / "copy.jpg")
    update_index(photos, index, load)
    digest = digest_of(photos / "sea" / "1.jpg")
    removed = remove_photos(index, [digest, "0" * 16])
    assert [entry.name for entry in removed] == ["copy.jpg", "sea/1.jpg"]
    assert remove_photos(index, [digest]) == []
    change = update_index(photos, index, load)
    assert (change.photos, change.new, change.removed) == (8, 0, 2)
    hits = query_index(index, photos / "sea" / "1.jpg", None, 9, load).hits
    assert len(hits) == 8 and "sea/1.jpg" not in {hit.name for hit in hits}
    # It is known by its content.
    (photos / "copy.jpg").rename(photos / "renamed.jpg")
    os.utime(photos / "sea" / "1.jpg", (0, 0))
    change = update_index(photos, index, load, rehash=True)
    assert (change.photos, change.new, change.removed) == (8, 0, 2)
    change = update_index(photos, index, load, rebuild=True)
    assert (change.photos, change.new, change.removed) == (8, 8, 2)
    change = update_index(photos, index, load, readd=True)
    assert (change.photos, change.new, change.removed) == (10, 2, 0)


def test_a_removed_photo_is_added_with_its_copies_by_the_next_update(
    index, photos, load
):
    shutil.copy(photos / "sea" / "1.jpg", photos / "copy.jpg")
    update_index(photos, index, load)
    remove_photos(index, [digest_of(photos / "copy.jpg")])
    assert add_files(index, ["copy.jpg"], load).new == 1
    change = update_index(photos, index, load)
    assert (change.photos, change.known, change.removed) == (10, 1, 0)


def test_a_removed_photo_that_was_edited_is_a_new_one(index, photos, load, jpeg):
    remove_photos(index, [digest_of(photos / "sea" / "1.jpg")])
    (photos / "sea" / "1.jpg").write_bytes(jpeg(seed=70, size=(48, 40)))
    change = update_index(photos, index, load)
    assert (change.photos, change.new, change.removed) == (9, 1, 0)


def test_files_are_deleted_where_that_is_wanted(index, photos, load, tmp_path):
    digest = digest_of(photos / "sea" / "1.jpg")
    outside = tmp_path / "outside"
    outside.mkdir()
    shutil.copy(photos / "sea" / "1.jpg", outside / "1.jpg")
    (photos / "link").symlink_to(outside)
    shutil.copy(photos / "sea" / "1.jpg", photos / "edited.jpg")
    update_index(photos, index, load)
    (photos / "edited.jpg").write_bytes(b"another content")
    assert len(remove_photos(index, [digest], delete_files=True)) == 3
    assert not (photos / "sea" / "1.jpg").exists()
    assert (outside / "1.jpg").exists() and (photos / "edited.jpg").exists()
    found = read_catalogue(index).photos
    assert len(found) == 8 and digest not in {entry.digest for entry in found.values()}


def test_a_deletion_that_is_interrupted_is_a_removal(index, photos, load, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(index_changes, "_delete", interrupt)
    digest = digest_of(photos / "sea" / "1.jpg")
    with pytest.raises(KeyboardInterrupt):
        remove_photos(index, [digest], delete_files=True)
    assert (photos / "sea" / "1.jpg").exists()
    assert update_index(photos, index, load).removed == 1


def test_the_last_photo_may_be_removed(index, photos, load):
    digests = [entry.digest for entry in read_catalogue(index).photos.values()]
    assert len(remove_photos(index, digests)) == 9
    assert os.listdir(index / "parts") == []
    change = update_index(photos, index, load)
    assert (change.photos, change.removed) == (0, 9)
    with pytest.raises(UserError, match="has no photo with a descriptor"):
        query_index(index, photos / "sea" / "1.jpg", None, 1, load)
    assert add_files(index, ["sea/1.jpg"], load).new == 1


def test_photos_that_have_moved_are_added_and_removed_there(index, photos, load, new):
    digest = digest_of(photos / "sea" / "1.jpg")
    moved = photos.rename(photos.with_name("moved"))
    assert add_files(index, [moved / new], load, root=moved).new == 1
    remove_photos(index, [digest], delete_files=True, root=moved)
    assert not (moved / "sea" / "1.jpg").exists()
    assert read_catalogue(index).root == str(photos)


def test_what_is_no_index_or_in_use_is_refused(index, load, tmp_path):
    for change in (
        lambda folder: add_files(folder, ["sea/1.jpg"], load),
        lambda folder: remove_photos(folder, ["0" * 16]),
    ):
        with pytest.raises(UserError, match="is not an index"):
            change(tmp_path / "none")
        assert not (tmp_path / "none").exists()
        with (
            held(index / ".lock", "mine"),
            pytest.raises(UserError, match="another process is updating it"),
        ):
            change(index)
