import contextlib
import os

import numpy as np
import pytest
from PIL import Image

from tokret.data.preparing import photo_processing
from tokret.errors import UserError
from tokret.search.photo_listing import Listing
from tokret.search.photos import photo_views, read_view, view_of


def find_photos(root):
    with contextlib.closing(Listing(root)) as listing:
        return dict(listing.stamps()), listing.notes


def test_photos_are_listed_by_name_and_known_by_size_and_time(photos):
    (photos / "notes.txt").write_text("no photo")
    (photos / "a.PNG").symlink_to(photos / "gone.png")
    (photos / "loop").symlink_to(photos)
    found, notes = find_photos(photos)
    assert list(found) == sorted(found) and len(found) == 10
    direct = "directly in my photos"
    assert notes[0] == f"10 photos in 3 folders: {direct}, mountains, sea"
    assert find_photos(photos / "sea")[1] == [f"4 photos directly in {photos / 'sea'}"]
    assert notes[1:] == ["1 file skipped, not photos by their suffix: .txt 1"]
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


def test_a_box_of_a_photo_above_the_limit_is_that_of_the_smaller_one(
    tmp_path, monkeypatch
):
    pixels = np.zeros((40, 64, 3), np.uint8)
    pixels[:, :16] = 200
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif, quality=95)
    box = 0.0, 0.0, 40.0, 16.0  # of the upright photo: the bright part
    whole = read_view(tmp_path / "a.jpg", "a.jpg", box, 64)
    assert whole.box == box and whole.size() == (16, 40)
    monkeypatch.setattr(photo_processing, "MAX_PIXELS", 1000)
    half = read_view(tmp_path / "a.jpg", "a.jpg", box, 16, max_pixels=4000)
    assert half.whole_size() == (20, 32) and half.box == (0, 0, 20, 8)
    assert half.pixels().shape == (4, 10, 3) and half.pixels().mean() > 190
    with pytest.raises(UserError, match="not inside a.jpg, which is 40 x 64 pixels"):
        read_view(
            tmp_path / "a.jpg", "a.jpg", (0.0, 0.0, 41.0, 9.0), 16, max_pixels=4000
        )
    with pytest.raises(UserError, match="more than 2,000"):
        view_of(tmp_path / "a.jpg", "a.jpg", 16, max_pixels=2000).size()
    (view,) = photo_views(tmp_path, ["a.jpg"], 16, max_pixels=4000)
    assert view.size() == (16, 10)


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
