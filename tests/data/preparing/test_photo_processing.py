"""Photos of every kind: taken, shrunk, or refused in a few words."""

import io
import os

import numpy as np
import pytest
from PIL import Image, ImageOps, JpegImagePlugin

from tokret.data import decoding, photo_formats
from tokret.data.preparing import photo_files, photo_processing
from tokret.data.preparing.photo_files import (
    BadPhotoError,
    PhotoLocation,
    PhotoReader,
)
from tokret.data.preparing.photo_processing import PhotoProcessing, process_photo
from tokret.errors import UserError

KEEP = PhotoProcessing()
SHRINK = PhotoProcessing(resize=64)
PIXELS = np.random.default_rng(0).integers(0, 256, (100, 150, 3), np.uint8)


def encoded(photo, kind="JPEG", **options):
    buffer = io.BytesIO()
    photo.save(buffer, kind, **options)
    return buffer.getvalue()


RGB = Image.fromarray(PIXELS)
KINDS = {
    "jpeg": encoded(RGB),
    "progressive": encoded(RGB, progressive=True),
    "grey": encoded(RGB.convert("L")),
    "cmyk": encoded(RGB.convert("CMYK")),
    "png": encoded(RGB, "PNG"),
    "palette with alpha": encoded(RGB.quantize(16), "PNG", transparency=b"\x00\x80"),
    "alpha": encoded(RGB.convert("RGBA"), "PNG"),
    "16 bit": encoded(Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257), "PNG"),
    "webp": encoded(RGB, "WEBP"),
    "animated": encoded(RGB, "GIF", save_all=True, append_images=[RGB.rotate(9)]),
    "rotated": encoded(
        RGB, exif=b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0"
    ),
    "tiff": encoded(RGB, "TIFF"),
    "avif": encoded(RGB, "AVIF"),
    "bmp": encoded(RGB, "BMP"),
    "1x1": encoded(Image.new("RGB", (1, 1))),
    "1x4000": encoded(Image.new("RGB", (1, 4000))),
}


def size(data):
    return Image.open(io.BytesIO(data)).size


@pytest.mark.parametrize(
    "kind", sorted(KINDS.keys() - {"16 bit", "palette with alpha"})
)
def test_every_kind_is_kept_as_it_came(kind):
    assert process_photo(KINDS[kind], KEEP) == KINDS[kind]


def test_transparency_of_a_palette_is_dropped():
    photo = Image.open(io.BytesIO(process_photo(KINDS["palette with alpha"], KEEP)))
    wanted = Image.open(io.BytesIO(KINDS["palette with alpha"])).convert("RGBA")
    np.testing.assert_array_equal(np.asarray(photo), np.asarray(wanted)[..., :3])


def test_16_bits_become_8_and_not_white():
    for processing in (KEEP, PhotoProcessing(resize=99)):
        photo = Image.open(io.BytesIO(process_photo(KINDS["16 bit"], processing)))
        assert photo.mode == "RGB"
        assert np.asarray(photo).mean() == pytest.approx(PIXELS[..., 0].mean(), abs=1)
    np.testing.assert_array_equal(
        np.asarray(Image.open(io.BytesIO(process_photo(KINDS["16 bit"], KEEP))))[
            ..., 1
        ],
        PIXELS[..., 0],
    )


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_by_exif(kind, orientation):
    smooth = RGB.resize((15, 10)).resize((150, 100), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(smooth, kind, exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    assert process_photo(data, KEEP) == data
    kept = process_photo(data, PhotoProcessing(upright=True))
    assert (kept == data) == (orientation == 1)
    photo = Image.open(io.BytesIO(kept))
    assert (
        photo.size == expected.size == ((150, 100) if orientation < 5 else (100, 150))
    )
    difference = np.asarray(photo.convert("RGB")).astype(float) - np.asarray(expected)
    assert np.abs(difference).mean() < 1.5
    small = Image.open(
        io.BytesIO(process_photo(data, PhotoProcessing(50, 95, upright=True)))
    )
    wanted = expected.resize(small.size, Image.Resampling.BOX)
    assert small.size == ((75, 50) if orientation < 5 else (50, 75))
    assert np.abs(np.asarray(small).astype(float) - np.asarray(wanted)).mean() < 2.5


def test_malformed_exif_is_ignored():
    for exif in (b"Exif\0\0rubbish", b"Exif\0\0II*\0\xff\xff\xff\xff", b""):
        data = encoded(RGB, exif=exif)
        assert process_photo(data, PhotoProcessing(upright=True)) == data


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_large_is_shrunk_and_what_is_small_never_enlarged(kind):
    data = process_photo(KINDS[kind], SHRINK)
    if kind.startswith("1x"):
        assert data == KINDS[kind]
    else:
        photo = Image.open(io.BytesIO(data))
        assert (photo.format, photo.mode, photo.size) == ("JPEG", "RGB", (96, 64))
        assert not photo.getexif()


def test_shrinking_averages_areas():
    rows = np.repeat(np.arange(0, 256, 4, dtype=np.uint8), 16)[:, None, None]
    pixels = np.broadcast_to(rows, (1024, 2048, 3)).copy()
    pixels[:, ::2] = np.minimum(pixels[:, ::2], 255) // 2  # stripes of single pixels
    data = process_photo(
        encoded(Image.fromarray(pixels), "PNG"), PhotoProcessing(256, 95)
    )
    small = np.asarray(Image.open(io.BytesIO(data))).astype(float)
    expected = pixels.reshape(256, 4, 512, 4, 3).mean((1, 3))
    assert small.shape == (256, 512, 3)
    assert np.abs(small - expected).mean() < 1


def test_far_larger_jpegs_are_shrunk_alike():
    # Grey: a JPEG's colours are coarser than its light.
    grey = RGB.convert("L").convert("RGB")
    smooth = grey.resize((1600, 1200), Image.Resampling.BICUBIC)
    direct = np.asarray(smooth.resize((200, 150), Image.Resampling.BOX)).astype(float)
    data = process_photo(encoded(smooth, quality=95), PhotoProcessing(150, 95))
    small = np.asarray(Image.open(io.BytesIO(data))).astype(float)
    assert np.abs(small - direct).mean() < 2


def test_quality_decides_the_size():
    sizes = [
        len(process_photo(KINDS["jpeg"], PhotoProcessing(64, q))) for q in (10, 50, 90)
    ]
    assert sizes == sorted(sizes) and len(set(sizes)) == 3


WHOLE = KINDS["jpeg"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"<html><title>302 Found</title></html>", "web page"),
        (b"  \n<!DOCTYPE html>", "web page"),
        (b"not a photo", "not a photo of a known format"),
        (b"\xff\xd8\xff\xe0\0\2", "cannot be read as JPEG: not identified"),
        (WHOLE[:-2], "truncated"),
        (WHOLE[: len(WHOLE) // 2], "truncated"),
        (WHOLE[:700], "truncated"),
        (KINDS["progressive"][:-40], "truncated"),
        (KINDS["png"][: len(KINDS["png"]) // 2], "truncated"),
        (KINDS["webp"][: len(KINDS["webp"]) // 2], "as WEBP: could not create"),
        (b"\x00\x00\x00\x0cJXL \r\n", "a JPEG XL file, which is not read; convert"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a photo"),
    ],
)
def test_what_is_no_photo_is_reported_in_few_words(data, message):
    for processing in (KEEP, SHRINK):
        with pytest.raises(BadPhotoError, match=message) as caught:
            process_photo(data, processing)
        assert len(str(caught.value)) < 120 and "\n" not in str(caught.value)


def test_a_claim_of_too_many_pixels_is_refused_unread():
    large = encoded(Image.new("1", (12_000, 12_000)), "PNG")
    assert len(large) < 30_000
    with pytest.raises(BadPhotoError, match="claims 12000 x 12000 pixels"):
        process_photo(large, KEEP)
    small = process_photo(large, PhotoProcessing(resize=100, max_pixels=150_000_000))
    assert size(small) == (100, 100)
    with pytest.raises(UserError, match="max_pixels"):
        PhotoProcessing(max_pixels=2**32)


@pytest.fixture
def low_limits(monkeypatch):
    """Photos of `KINDS` have 15,000 pixels; whole ones may be stored with 10,000."""
    monkeypatch.setattr(photo_processing, "MAX_PIXELS", 10_000)
    return PhotoProcessing(upright=True, max_pixels=20_000)


@pytest.mark.parametrize("kind", ["jpeg", "progressive", "cmyk", "png", "rotated"])
def test_what_exceeds_a_raised_limit_is_stored_at_half_its_sides(kind, low_limits):
    photo = Image.open(io.BytesIO(process_photo(KINDS[kind], low_limits)))
    assert (photo.format, photo.mode) == ("JPEG", "RGB")
    assert photo.size == ((50, 75) if kind == "rotated" else (75, 50))
    # Grey: a JPEG's colours are coarser than its light.
    whole = Image.open(io.BytesIO(KINDS["jpeg"])).convert("L")
    if kind == "rotated":
        whole = whole.transpose(Image.Transpose.ROTATE_270)
    wanted = np.asarray(whole.resize(photo.size, Image.Resampling.BOX)).astype(int)
    assert np.abs(np.asarray(photo.convert("L")) - wanted).mean() < 3


def test_only_baseline_jpegs_exceed_memory(low_limits, monkeypatch):
    monkeypatch.setattr(photo_processing, "MAX_HELD_PIXELS", 12_000)
    drafts = []
    draft = JpegImagePlugin.JpegImageFile.draft

    def note(photo, mode, size):
        draft(photo, mode, size)
        drafts.append(photo.size)

    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "draft", note)
    assert size(process_photo(KINDS["jpeg"], low_limits)) == (75, 50)
    # A photo is decoded at twice its new size, unless that is too large for memory.
    for resize in (25, 50):
        process_photo(KINDS["jpeg"], PhotoProcessing(resize, max_pixels=20_000))
    assert drafts == [(75, 50), (75, 50), (75, 50)]
    for kind in ("progressive", "png"):
        with pytest.raises(BadPhotoError, match="above 12,000 only a baseline JPEG"):
            process_photo(KINDS[kind], low_limits)


def test_limits_leave_smaller_photos_alone(low_limits, monkeypatch):
    monkeypatch.setattr(photo_processing, "MAX_PIXELS", 15_000)
    for kind in KINDS.keys() - {"rotated", "16 bit", "palette with alpha"}:
        assert process_photo(KINDS[kind], low_limits) == KINDS[kind]


def test_heic_is_read_or_what_to_install_is_named(monkeypatch):
    brands = b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic"
    monkeypatch.setattr(photo_formats, "_heic_is_read", lambda: False)
    with pytest.raises(
        BadPhotoError, match="^not readable here: HEIC needs pillow-heif"
    ):
        process_photo(brands + bytes(99), KEEP)
    monkeypatch.undo()
    pytest.importorskip("pillow_heif")
    assert photo_formats._heic_is_read()
    smooth = RGB.resize((15, 10)).resize((150, 100), Image.Resampling.BICUBIC)
    data = encoded(smooth, "HEIF")
    stored = Image.open(io.BytesIO(process_photo(data, KEEP)))
    assert stored.format == "JPEG"  # which every reader knows
    for pixels in (
        np.asarray(stored),
        np.asarray(decoding.decode_exactly(data, "a")),
        decoding.decode_fast(data, "a"),
    ):
        assert np.abs(pixels.astype(int) - np.asarray(smooth)).mean() < 6
    assert size(process_photo(data, PhotoProcessing(50))) == (75, 50)


def test_a_defect_of_a_plugin_is_the_photos(monkeypatch):
    def broken(*_):
        raise IndexError

    monkeypatch.setattr(photo_processing, "open_encoded", broken)
    with pytest.raises(BadPhotoError, match="cannot be decoded: IndexError"):
        process_photo(WHOLE, KEEP)


def test_parts_of_files_and_whole_ones_are_read(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"0123456789")
    two.write_bytes(b"ab")
    with PhotoReader() as reader:
        assert reader.read(PhotoLocation(str(one), 2, 3)) == b"234"
        assert reader.read(PhotoLocation(str(one), 9, 1)) == b"9"
        assert reader.read(PhotoLocation(str(two))) == b"ab"
        assert reader.read(PhotoLocation(str(one))) == b"0123456789"
        assert reader.read(PhotoLocation(str(one), 4, 0)) == b""
        with pytest.raises(BadPhotoError, match="ends before"):
            reader.read(PhotoLocation(str(one), 8, 3))


def test_what_cannot_be_read_is_reported(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "broken").symlink_to(tmp_path / "none")
    (tmp_path / "large").write_bytes(b"12345")
    monkeypatch.setattr(photo_files, "MAX_BYTES", 4)
    with PhotoReader() as reader:
        for name, message in (
            ("none", "^missing$"),
            ("broken", r"^a link to .*none, which does not exist$"),
            ("pipe", "is a named pipe"),  # opening it would wait for ever
            ("folder", "is a folder"),
            ("loop", "cannot be read: Too many levels"),
            ("large", "larger than"),
        ):
            with pytest.raises(BadPhotoError, match=message):
                reader.read(PhotoLocation(str(tmp_path / name)))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_reported(tmp_path):
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "a").chmod(0)
    with (
        PhotoReader() as reader,
        pytest.raises(BadPhotoError, match="Permission denied"),
    ):
        reader.read(PhotoLocation(str(tmp_path / "a")))


@pytest.mark.parametrize(
    ("resize", "quality"), [(-1, 90), (40_000, 90), (0, 0), (0, 96)]
)
def test_treatments_out_of_range_are_refused(resize, quality):
    with pytest.raises(UserError, match="(resize|quality)"):
        PhotoProcessing(resize, quality)
