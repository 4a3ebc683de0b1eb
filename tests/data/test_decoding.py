import io

import numpy as np
import pytest
from PIL import Image

from tokret.data import decoding
from tokret.errors import UserError


def encoded(pixels, kind="JPEG", **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


PHOTO = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_both_decoders_agree(kind):
    data = encoded(PHOTO, kind)
    exact = np.asarray(decoding.decode_exactly(data, "a"))
    fast = decoding.decode_fast(data, "a")
    assert exact.shape == fast.shape == (40, 60, 3)
    assert np.abs(exact.astype(int) - fast).max() <= 2


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


@pytest.mark.parametrize("data", [b"", b"<html>", b"\xff\xd8\xff"])
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
