"""Photos of any kind in a folder: used or reported, the same in training and after."""

import io
import os

import numpy as np
import pytest
from PIL import Image, ImageOps

from tokret.data import datasets
from tokret.data.augmentation import Augmentation
from tokret.data.decoding import decode_fast
from tokret.data.streams import training_batches
from tokret.data.views import View
from tokret.errors import UserError

# Smooth: what decoders differ in is the detail of colours.
PIXELS = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
RGB = Image.fromarray(PIXELS).resize((120, 80), Image.Resampling.BILINEAR)


def encoded(photo, kind="JPEG", **options):
    buffer = io.BytesIO()
    photo.save(buffer, kind, **options)
    return buffer.getvalue()


def ycck(photo):
    """A CMYK JPEG as Photoshop writes it: inverted, its first three as YCbCr."""
    inks = ImageOps.invert(photo).convert("YCbCr")
    bands = [*ImageOps.invert(Image.merge("RGB", inks.split())).split()]
    none = Image.new("L", photo.size)
    data = encoded(Image.merge("CMYK", [*bands, none]), quality=95)
    at = data.index(b"Adobe")
    return data[: at + 11] + b"\x02" + data[at + 12 :]


def turned(orientation, kind="JPEG"):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(RGB, kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {}))


GREY = np.asarray(RGB.convert("L"))
TAKEN = {
    "grey.jpg": encoded(RGB.convert("L")),
    "cmyk.jpg": encoded(RGB.convert("CMYK")),
    "ycck.jpg": ycck(RGB),
    "16 bit.png": encoded(Image.fromarray(GREY.astype(np.uint16) * 257), "PNG"),
    "palette.png": encoded(RGB.quantize(16), "PNG", transparency=b"\x00\x80"),
    "alpha.png": encoded(RGB.convert("RGBA"), "PNG"),
    "grey alpha.png": encoded(RGB.convert("LA"), "PNG"),
    "png called.jpg": encoded(RGB, "PNG"),
    "1x1.jpg": encoded(Image.new("RGB", (1, 1), "red")),
    "1x4000.jpg": encoded(Image.new("RGB", (1, 4000), "red")),
    "4000x1.png": encoded(Image.new("RGB", (4000, 1), "red"), "PNG"),
    'une "photo" d\'été, 写真 👍.webp': encoded(RGB, "WEBP"),
    **{f"turned {i}.jpg": turned(i) for i in range(1, 9)},
    **{f"turned {i}.png": turned(i, "PNG") for i in (3, 6)},
}
REFUSED = {
    "cut.jpg": (encoded(RGB)[:-300], "truncated"),
    "empty.jpg": (b"", "empty"),
    "page.jpg": (b"<!DOCTYPE html><html>", "a web page"),
    "text.png": (b"hello", "not a photo"),
    "large.png": (encoded(Image.new("1", (12_000, 12_000)), "PNG"), "claims 12000 x"),
}


def prepare(tmp_path, photos, **options):
    (tmp_path / "photos" / "a").mkdir(parents=True, exist_ok=True)
    for name, data in photos.items():
        (tmp_path / "photos" / "a" / name).write_bytes(data)
    fields = {"root": str(tmp_path / "photos"), "validation_fraction": 0.0} | options
    dataset = datasets.prepare(str(tmp_path / "d"), name="image_folder", **fields)
    records = dataset.records("train")
    each = [records[row] for row in range(len(records))]
    return {record["filename"].decode()[2:]: record for record in each}, records


def seen(record):
    """A photo's pixels as training and evaluation see them."""
    trained = decode_fast(record["image"], record["filename"].decode())
    evaluated = View(record["image"], "x", None, 4000).pixels()
    assert trained.shape == evaluated.shape
    return trained.astype(int), evaluated.astype(int)


def test_every_kind_is_prepared_trained_on_and_evaluated(tmp_path):
    found, records = prepare(tmp_path, TAKEN)
    assert set(found) == set(TAKEN)
    batch = next(
        training_batches(records, Augmentation(size=16), batch_size=len(TAKEN), seed=0)
    )
    assert (
        batch["images"].shape == (len(TAKEN), 16, 16, 3) and (batch["bad"] == -1).all()
    )
    for name, record in found.items():
        trained, evaluated = seen(record)
        assert np.abs(trained - evaluated).mean() < 3, name
        small = View(record["image"], name, None, 32)
        assert small.pixels().shape[:2] == small.size() and max(small.size()) <= 32
        if "x" not in name and "turned" not in name:
            wanted = GREY[..., None] if name.startswith(("grey", "16")) else RGB
            limit = 25 if name.startswith("palette") else 4
            assert np.abs(evaluated - np.asarray(wanted, int)).mean() < limit, name


@pytest.mark.parametrize("exif", [True, False])
def test_orientation_is_applied_by_default(tmp_path, exif):
    turned = {name: data for name, data in TAKEN.items() if "turned" in name}
    found, _ = prepare(tmp_path, turned, exif=exif)
    upright = np.asarray(RGB, int)
    for name, record in found.items():
        orientation = int(name[7])
        expected = upright
        if exif:
            if orientation >= 5:
                expected = expected.swapaxes(0, 1)
            across = orientation in (2, 3, 6, 7)
            down = orientation in (3, 4, 7, 8)
            expected = expected[:: -1 if down else 1, :: -1 if across else 1]
        assert (record["image"] == TAKEN[name]) == (orientation == 1 or not exif)
        for pixels in seen(record):
            assert pixels.shape == expected.shape
            assert np.abs(pixels - expected).mean() < 3, name


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_taken_is_named_or_skipped(tmp_path, name, capsys):
    data, message = REFUSED[name]
    photos = {"good.jpg": TAKEN["grey.jpg"], name: data}
    with pytest.raises(
        UserError, match=f"1 of 2 photos cannot be used: a/{name} .*{message}"
    ):
        prepare(tmp_path, photos)
    found, _ = prepare(tmp_path, photos, skip_bad=True)
    assert set(found) == {"good.jpg"}
    assert message in capsys.readouterr().err


def test_large_photos_can_be_shrunk_and_a_lower_limit_set(tmp_path):
    photos = {"large.png": REFUSED["large.png"][0]}
    found, _ = prepare(tmp_path, photos, max_pixels=150_000_000, resize=64)
    assert seen(found["large.png"])[0].shape == (64, 64, 3)
    with pytest.raises(UserError, match="claims 120 x 80 pixels, more than 9,000"):
        prepare(tmp_path / "b", {"a.jpg": encoded(RGB)}, max_pixels=9_000)


def test_other_files_are_skipped_with_a_note(tmp_path, capsys):
    others = {"a.mp4": b"x", "b.MP4": b"x", "Thumbs.db": b"x", "README": b"x"}
    found, _ = prepare(tmp_path, {"good.jpg": TAKEN["grey.jpg"]} | others)
    assert set(found) == {"good.jpg"}
    err = capsys.readouterr().err
    assert "4 files skipped, not photos by their suffix: .mp4 2, " in err


def test_links(tmp_path):
    folder = tmp_path / "photos" / "a"
    (folder / "deeper").mkdir(parents=True)
    (folder / "deeper" / "up").symlink_to(folder)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "far.jpg").write_bytes(encoded(RGB))
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photos" / "b").symlink_to(tmp_path / "elsewhere")
    photos = {"good.jpg": encoded(RGB)}
    found, records = prepare(tmp_path, photos)
    names = [record["filename"].decode() for record in records]
    assert names == ["a/good.jpg", "a/linked/far.jpg", "b/far.jpg"]
    (folder / "loop.jpg").symlink_to(folder / "loop.jpg")
    (folder / "nowhere.jpg").symlink_to(folder / "none")
    with pytest.raises(UserError, match=r"2 of 5 .*loop\.jpg \(cannot be read: Too"):
        prepare(tmp_path, photos)
    assert len(prepare(tmp_path, photos, skip_bad=True)[1]) == 3


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_without_permission(tmp_path):
    (tmp_path / "photos" / "a").mkdir(parents=True)
    (tmp_path / "photos" / "a" / "x.jpg").write_bytes(encoded(RGB))
    (tmp_path / "photos" / "a" / "x.jpg").chmod(0)
    with pytest.raises(UserError, match=r"x\.jpg \(cannot be read: Permission denied"):
        prepare(tmp_path, {"good.jpg": encoded(RGB)})
    (tmp_path / "photos" / "a" / "x.jpg").chmod(0o600)
    (tmp_path / "photos" / "b").mkdir(mode=0)
    with pytest.raises(UserError, match=r"photos/b cannot be read"):
        prepare(tmp_path, {"good.jpg": encoded(RGB)})


def test_names_that_are_no_text(tmp_path, capsys):
    folder = tmp_path / "photos" / "a"
    folder.mkdir(parents=True)
    with open(os.fsencode(folder) + b"/\xff.jpg", "wb") as file:
        file.write(encoded(RGB))
    (folder / "two\nlines.jpg").write_bytes(encoded(RGB))
    found, _ = prepare(tmp_path, {"good.jpg": encoded(RGB)})
    assert set(found) == {"good.jpg"}
    err = capsys.readouterr().err
    assert "2 names skipped that are not text of one line: a/two\\nlines.jpg" in err
    assert "a/\\udcff.jpg" in err
