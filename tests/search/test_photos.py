import os

import numpy as np
import pytest
from PIL import Image

from tokret.errors import UserError
from tokret.search.photos import find_photos, photo_views, read_view


def test_photos_are_listed_by_name_and_known_by_size_and_time(photos):
    (photos / "notes.txt").write_text("no photo")
    (photos / "a.PNG").symlink_to(photos / "gone.png")
    (photos / "loop").symlink_to(photos)
    found, notes = find_photos(photos)
    assert list(found) == sorted(found) and len(found) == 10
    assert notes[0].startswith("10 photos in ")
    assert notes[1:] == ["1 files skipped, not photos by their suffix: .txt 1"]
    assert found["a.PNG"] == (0, 0)
    stamp = found["sea/1.jpg"]
    assert stamp.size == (photos / "sea/1.jpg").stat().st_size
    os.utime(photos / "sea/1.jpg", ns=(0, stamp.modified + 1))
    assert find_photos(photos)[0]["sea/1.jpg"] != stamp


def test_names_of_several_lines_are_skipped(photos):
    (photos / os.fsdecode(b"\xff.jpg")).write_bytes(b"")
    (photos / "two\nlines.jpg").write_bytes(b"")
    found, notes = find_photos(photos)
    assert len(found) == 9 and "2 names skipped" in notes[-1]


def test_what_is_no_folder_is_refused(photos):
    with pytest.raises(UserError, match="1.jpg is not a folder"):
        find_photos(photos / "sea" / "1.jpg")


def test_views_are_upright_and_read_when_indexed(tmp_path):
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:, :16] = 200
    turned = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn to the right brings it upright
    turned.save(tmp_path / "turned.png", exif=exif)
    turned.rotate(-90, expand=True).save(tmp_path / "upright.png")
    views = photo_views(tmp_path, ("turned.png", "upright.png", "gone.png"), 64)
    assert len(views) == 3 and len(views[1:]) == 2
    np.testing.assert_array_equal(views[0].pixels(), views[1].pixels())
    assert views[0].size() == (32, 16)
    for look in (views[2].size, views[2].pixels):
        with pytest.raises(UserError, match=r"gone\.png: missing"):
            look()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><p>404", "a web page"),
        (b"\xff\xd8\xff no more", "cannot be read as JPEG"),
    ],
)
def test_the_error_names_what_is_wrong_with_a_photo(tmp_path, content, message):
    (tmp_path / "odd.jpg").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_view(tmp_path / "odd.jpg", "odd.jpg", None, 64)
