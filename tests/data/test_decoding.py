import io

import numpy as np
import pytest
from PIL import Image

from tokret.data import decoding, jpeg_markers
from tokret.errors import UserError


def encoded(pixels, kind="JPEG", **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


PHOTO = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_both_decoders_agree(kind):
    data = encoded(PHOTO, kind)
    exact = np.asarray(decoding.decode_exactly(data, "a"))
    fast = decoding.decode_fast(data, "a")
    assert exact.shape == fast.shape == (40, 60, 3)
    assert np.abs(exact.astype(int) - fast).max() <= 2


# Large areas: what decoders differ in is the detail of colours.
AREAS = np.kron(np.array([[9, 240], [90, 160]], np.uint8), np.ones((20, 30), np.uint8))
AREAS = np.stack([AREAS, 255 - AREAS, AREAS], -1)


@pytest.mark.parametrize("kind", ["MPO", "PNG", "WEBP", "GIF", "TIFF", "AVIF"])
def test_of_several_frames_the_first_is_decoded(kind):
    frames = {"save_all": True, "append_images": [Image.fromarray(255 - AREAS)]}
    data = encoded(AREAS, kind, **frames)
    for pixels in (
        np.asarray(decoding.decode_exactly(data, "a")),
        decoding.decode_fast(data, "a"),
    ):
        assert np.abs(pixels.astype(int) - AREAS).mean() < 9  # not 140


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
def test_both_decoders_have_the_same_orientation(kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(AREAS, kind, exif=exif)
    exact = np.asarray(decoding.decode_exactly(data, "a"))
    fast = decoding.decode_fast(data, "a")
    # Of a TIFF, the orientation is a part of the format itself.
    assert exact.shape[:2] == ((60, 40) if kind == "TIFF" else (40, 60))
    assert decoding.read_header(data, "a").shape == fast.shape[:2]
    assert exact.shape == fast.shape
    assert np.abs(exact.astype(int) - fast).mean() < 3


def test_grey_and_cmyk_become_rgb():
    for data in (encoded(PHOTO[..., 0]), encoded_cmyk()):
        assert np.asarray(decoding.decode_exactly(data, "a")).shape == (40, 60, 3)
        assert decoding.decode_fast(data, "a").shape == (40, 60, 3)


def encoded_cmyk():
    buffer = io.BytesIO()
    Image.fromarray(PHOTO).convert("CMYK").save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [b"", b"<html>not found</html>", b"\xff\xd8\xff", encoded(PHOTO)[:200]],
    ids=["empty", "html", "header only", "cut short"],
)
def test_what_is_no_photo_is_named(data):
    with pytest.raises(UserError, match="shelf/photo 1.jpg"):
        decoding.decode_exactly(data, "shelf/photo 1.jpg")


@pytest.mark.parametrize(
    "data", [b"", b"<html>", b"\xff\xd8\xff", encoded(PHOTO)[:900]]
)
def test_the_fast_decoder_names_it_too(data):
    with pytest.raises(UserError, match="photo 2"):
        decoding.decode_fast(data, "photo 2")


def test_a_claim_of_too_many_pixels_is_refused_unread():
    small = encoded(np.zeros((1, 1), np.uint8), "PNG")
    # The width and height of a PNG's header; its sum is not checked on opening.
    import struct
    import zlib

    header = b"IHDR" + struct.pack(">II", 60_000, 60_000) + small[24:29]
    bomb = small[:12] + header + struct.pack(">I", zlib.crc32(header)) + small[33:]
    with pytest.raises(UserError, match=r"bomb\.png"):
        decoding.open_photo(bomb, "bomb.png")


def test_a_jpegs_claim_is_refused_by_the_fast_decoder():
    data = bytearray(encoded(PHOTO))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = b"\xea\x60\xea\x60"
    with pytest.raises(UserError, match=r"bomb: claims 60000 x 60000 pixels"):
        decoding.decode_fast(bytes(data), "bomb")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"progressive": True},
        {"subsampling": 0},
        {"exif": b"Exif\0\0" + bytes(40_000)},
        {"comment": b"\xff\xc0 is no frame here"},
    ],
    ids=lambda options: next(iter(options), "plain"),
)
def test_the_shape_of_a_jpeg_is_in_its_header(options):
    data = encoded(PHOTO, **options)
    assert jpeg_markers.jpeg_shape(data) == (40, 60)
    # A byte of filling before a marker is allowed.
    assert jpeg_markers.jpeg_shape(data[:2] + b"\xff" + data[2:]) == (40, 60)
    for length in range(0, data.index(b"\xff\xda"), 97):
        assert jpeg_markers.jpeg_shape(data[:length]) in (None, (40, 60))
    assert jpeg_markers.jpeg_shape(encoded(PHOTO, "PNG")) is None


@pytest.mark.parametrize("reduction", [2, 4, 8])
def test_a_reduced_jpeg_is_the_average_of_its_pixels(reduction, monkeypatch):
    smooth = np.kron(PHOTO[:10, :12] // 2, np.ones((8, 8, 1), np.uint8))
    photo = decoding.read_header(encoded(smooth, subsampling=0, quality=95), "a")
    by_pillow = decoding.decode_exactly(photo.encoded, "a", reduction)
    with monkeypatch.context() as patch:
        patch.setattr(decoding, "decode_exactly", None)
        small = photo.pixels(reduction)
    sides = (80 // reduction, 96 // reduction)
    blocks = photo.pixels().reshape(sides[0], reduction, sides[1], reduction, 3)
    assert np.abs(small - blocks.mean(axis=(1, 3))).max() < 4
    assert np.abs(small.astype(int) - by_pillow).max() <= 1


def test_only_a_jpeg_is_reduced():
    photo = decoding.read_header(encoded(PHOTO, "PNG"), "a.png")
    assert photo.shape == (40, 60) and not photo.is_jpeg
    with pytest.raises(ValueError, match=r"a\.png is not a JPEG"):
        photo.pixels(2)


def test_what_opencv_refuses_pillow_decodes(monkeypatch):
    monkeypatch.setattr(decoding.cv2, "imdecode", lambda *arguments: None)
    data = encoded(PHOTO)
    expected = np.asarray(decoding.decode_exactly(data, "a"))
    np.testing.assert_array_equal(decoding.decode_fast(data, "a"), expected)
    assert decoding.read_header(data, "a").pixels(8).shape == (5, 8, 3)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
def test_every_kind_of_png_becomes_rgb(mode):
    buffer = io.BytesIO()
    if mode == "I;16":
        Image.fromarray(PHOTO[..., 0].astype(np.uint16) * 257).save(buffer, "PNG")
    else:
        Image.fromarray(PHOTO).convert(mode).save(buffer, "PNG")
    assert decoding.decode_fast(buffer.getvalue(), "a").shape == (40, 60, 3)


@pytest.mark.parametrize("shape", [(1, 1), (1, 4000), (4000, 1)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF"])
def test_thin_photos(shape, kind):
    data = encoded(np.full((*shape, 3), 99, np.uint8), kind)
    assert (decoding.decode_fast(data, "a") == 99).all()
