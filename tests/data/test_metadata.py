"""Photos with damaged or large metadata: decoded as they are without it."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tokret.data import decoding
from tokret.data.metadata import is_cut_png, without_metadata
from tokret.data.preparing.photo_files import BadPhotoError
from tokret.data.preparing.photo_processing import PhotoProcessing, process_photo
from tokret.errors import UserError

RGB = Image.fromarray(
    np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
).resize((90, 60), Image.Resampling.BILINEAR)
ORIENTATION = 0x0112
EXIF = Image.Exif()
EXIF[ORIENTATION] = 6
TURNED = EXIF.tobytes()  # saving an AVIF takes the orientation out of an Exif
LARGE = 2 * 2**20  # bytes, twice what Pillow takes of a text


def encoded(kind, photo=RGB, **options):
    buffer = io.BytesIO()
    photo.save(buffer, kind, **options)
    return buffer.getvalue()


PNG, JPEG = encoded("PNG"), encoded("JPEG")


def chunk(kind, content, crc=None):
    crc = zlib.crc32(kind + content) if crc is None else crc
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


def png(*chunks, at=33):
    """A PNG with more chunks, by default behind its header."""
    return PNG[:at] + b"".join(chunks) + PNG[at:]


def jpeg(marker, content):
    """A JPEG with one more segment."""
    length = (2 + len(content)).to_bytes(2, "big")
    return JPEG[:2] + bytes([0xFF, marker]) + length + content + JPEG[2:]


def malformed_exif():
    """A JPEG that Pillow refuses: the resolution in its Exif is an empty text."""
    body = struct.pack(">2sHIH", b"MM", 42, 8, 2)
    body += struct.pack(">HHII", 0x0128, 3, 1, 2 << 16)
    body += struct.pack(">HHII", 0x011A, 2, 1, 0) + bytes(4)
    return JPEG[:2] + jpeg(0xE1, b"Exif\0\0" + body)[2:].replace(b"JFIF", b"xxxx", 1)


ENDING = len(PNG) - 12  # where the chunk IEND begins
SWOLLEN = zlib.compress(bytes(LARGE))
DAMAGED = {
    "text.png": png(chunk(b"zTXt", b"a\0\0" + SWOLLEN)),
    "text behind.png": png(chunk(b"zTXt", b"a\0\0" + SWOLLEN), at=ENDING),
    "international.png": png(chunk(b"iTXt", b"a\0\1\0\0\0" + SWOLLEN)),
    "profile.png": png(chunk(b"iCCP", b"a\0\0" + SWOLLEN)),
    "profile without end.png": png(chunk(b"iCCP", b"a")),
    "crc of text.png": png(chunk(b"tEXt", b"a\0b", 0)),
    "crc of exif.png": png(chunk(b"eXIf", b"MM\0*", 0)),
    "crc of transparency.png": png(chunk(b"tRNS", bytes(6), 0)),
    "short gamma.png": png(chunk(b"gAMA", b"")),
    "trailing.png": PNG + bytes(range(256)) * 20,
    "short APP14.jpg": jpeg(0xEE, b"Adobe"),
    "short APP0.jpg": jpeg(0xE0, b"JFIF\0"),
    "exif.jpg": malformed_exif(),
    "profile.jpg": jpeg(0xE2, b"ICC_PROFILE\0"),
    "trailing.jpg": JPEG + bytes(range(256)) * 20,
    "exif.avif": encoded("AVIF", exif=TURNED).replace(b"MM\0*", b"????"),
}


def pixels_of(name):
    kind = {"png": "PNG", "jpg": "JPEG", "avif": "AVIF"}[name.rpartition(".")[2]]
    return np.asarray(Image.open(io.BytesIO(encoded(kind))).convert("RGB"))


@pytest.mark.parametrize("name", DAMAGED)
def test_a_photo_with_damaged_metadata_has_its_pixels(name):
    data = DAMAGED[name]
    np.testing.assert_array_equal(decoding.decode_exactly(data, name), pixels_of(name))
    assert decoding.open_photo(data, name).size == (90, 60)
    fast = decoding.decode_fast(data, name)
    exact = np.asarray(decoding.decode_exactly(data, name)).astype(int)
    assert np.abs(fast - exact).max() <= (0 if name.endswith("png") else 3)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_prepared_has_no_damage(name):
    data = process_photo(DAMAGED[name], PhotoProcessing())
    photo = Image.open(io.BytesIO(data)).convert("RGB")
    np.testing.assert_array_equal(photo, pixels_of(name))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_other_damage_leaves_the_orientation(kind):
    data = encoded(kind, exif=TURNED)
    damage = chunk(b"tEXt", b"a\0b", 0) if kind == "PNG" else jpeg(0xEE, b"Adobe")[2:11]
    at = 33 if kind == "PNG" else 2
    upright = process_photo(
        data[:at] + damage + data[at:], PhotoProcessing(0, 90, True)
    )
    assert Image.open(io.BytesIO(upright)).size == (60, 90)


def test_pixels_that_are_damaged_are_refused_with_the_decoders_reason():
    header = bytearray(png(chunk(b"tEXt", b"a\0b", 0)))
    header[20] ^= 1
    with pytest.raises(BadPhotoError, match="as PNG: .*checksum in b'IHDR'"):
        process_photo(bytes(header), PhotoProcessing())
    with pytest.raises(BadPhotoError, match="truncated"):
        process_photo(DAMAGED["text.png"][:-900], PhotoProcessing())
    with pytest.raises(UserError, match=r"a\.jpg: cannot be decoded: .*truncated"):
        decoding.decode_exactly(DAMAGED["short APP14.jpg"][:-90], "a.jpg")


def test_colours_need_some_of_a_jpegs_segments():
    cmyk = encoded("JPEG", RGB.convert("CMYK"))
    for bare in without_metadata(cmyk):
        assert bare == cmyk
    # Without JFIF or Adobe's marker, libjpeg decides by the components' names.
    for bare in without_metadata(encoded("JPEG", comment=b"a", exif=TURNED)):
        assert bare.count(b"JFIF\0") == 1 and b"\xff\xfe" not in bare[:200]


def test_a_png_with_a_chunk_longer_than_the_file_is_not_for_opencv(monkeypatch):
    assert not is_cut_png(PNG) and not is_cut_png(DAMAGED["trailing.png"])
    cut = png(struct.pack(">I", 10 * len(PNG)) + b"IDAT", at=ENDING)
    assert is_cut_png(cut) and not is_cut_png(JPEG)
    monkeypatch.setattr(decoding.cv2, "imdecode", None)
    with pytest.raises(UserError, match="a: cannot be decoded: Truncated"):
        decoding.decode_fast(cut, "a")
