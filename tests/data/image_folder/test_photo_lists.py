"""Which photos and classes a folder has, and what is reported about the others."""

import pytest

from tokret.data.image_folder.photo_lists import existing_path, find_photos
from tokret.errors import UserError


@pytest.fixture
def root(tmp_path, jpeg):
    """Returns a function that writes photos, by their names, below a folder."""

    def write(*names):
        for seed, name in enumerate(names):
            path = tmp_path / "photos" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(jpeg(seed))
        return tmp_path / "photos"

    return write


def labels(found):
    return sorted({photo.label for photo in found.photos})


def test_classes_are_named(root):
    found = find_photos(root(*(f"{name}/0.jpg" for name in "gfedcba")))
    assert found.notes == ["7 photos of 7 classes: a, b, c, d, e and 2 more"]


def test_hidden_folders_are_no_classes(root):
    folder = root(
        *("a/0.jpg", "b/0.jpg", ".ipynb_checkpoints/0-checkpoint.jpg", ".DS_Store"),
        *("a/@eaDir/0.jpg/THUMB.jpg", "b/._0.jpg", "__MACOSX/b/0.jpg"),
    )
    found = find_photos(folder)
    assert labels(found) == ["a", "b"] and len(found.photos) == 2
    assert found.notes[1] == (
        "5 hidden files and folders skipped: .DS_Store, .ipynb_checkpoints, __MACOSX, "
        "a/@eaDir, b/._0.jpg"
    )


def test_photos_in_no_class_folder_are_reported(root):
    folder = root("a/0.jpg", "1.jpg", "2.png", "list.csv")
    notes = find_photos(folder).notes
    assert notes[1] == "1 file skipped, not photos by their suffix: .csv 1"
    assert notes[2].startswith("2 photos skipped, directly in ")
    assert notes[2].endswith("in no class folder: 1.jpg, 2.png")
    (folder / "a" / "0.jpg").unlink()
    with pytest.raises(UserError, match="has no class folder .*2 photos skipped"):
        find_photos(folder)


def test_classes_one_level_deeper_are_hinted_at(root):
    folder = root("train/a/0.jpg", "train/b/0.jpg", "test/a/0.jpg")
    found = find_photos(folder)
    assert labels(found) == ["test", "train"]
    assert found.notes[0] == "3 photos of 2 classes: test, train"
    assert "(test/a, train/a, train/b), choose one of: " in found.notes[1]
    assert found.notes[1].endswith(f"{folder}/test, {folder}/train")
    root("train/0.jpg")
    assert len(find_photos(folder).notes) == 1


@pytest.mark.parametrize(
    ("text", "existing", "expected"),
    [
        ("./a/b.jpg", "a/b.jpg", "a/b.jpg"),
        ("a\\b.jpg", "a/b.jpg", "a/b.jpg"),
        ("a\\b.jpg", "a\\b.jpg", "a\\b.jpg"),
        ("a\\b.jpg", "", "a/b.jpg"),
        ("caf\u00e9/b.jpg", "cafe\u0301/b.jpg", "cafe\u0301/b.jpg"),
        ("cafe\u0301\\b.jpg", "caf\u00e9/b.jpg", "caf\u00e9/b.jpg"),
        ("cafe\u0301/b.jpg", "cafe\u0301/b.jpg", "cafe\u0301/b.jpg"),
    ],
)
def test_paths_from_lists_have_the_spelling_that_exists(text, existing, expected):
    assert existing_path(text, existing.__eq__) == expected


def test_spaces_at_a_class_names_ends_are_kept(root, read, tmp_path):
    folder = root("a/0.jpg", "a\u00a0/0.jpg", " a/0.jpg", "caf\u00e9\u00a0bar/0.jpg")
    dataset, _ = read(tmp_path / "d", "image_folder", root=str(folder))
    names = dataset.builder.info.features["label"].names
    assert names == ["\\u0020a", "a", "a\\u00a0", "caf\u00e9\u00a0bar"]
    # As it is read again, and prepared again.
    again, _ = read(tmp_path / "d", "image_folder", root=str(folder))
    assert again.class_names == names and again.builder.data_path
