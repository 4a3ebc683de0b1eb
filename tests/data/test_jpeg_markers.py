"""Scans of a JPEG: counted as a decoder reads them, and bounded wherever it decodes."""

import io

import numpy as np
import pytest
from PIL import Image

from tokret.data import decoding
from tokret.data.augmentation import Augmentation
from tokret.data.checking.photo_checks import PhotoToCheck, check_batch
from tokret.data.jpeg_markers import num_scans, segments
from tokret.data.preparing.photo_files import BadPhotoError
from tokret.data.preparing.photo_processing import PhotoProcessing, process_photo
from tokret.data.views import View
from tokret.errors import UserError
from tokret.search.photos import view_of

RGB = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))


def encoded(kind="JPEG", photo=RGB, **options):
    buffer = io.BytesIO()
    photo.save(buffer, kind, **options)
    return buffer.getvalue()


PLAIN, PROGRESSIVE = encoded(), encoded(progressive=True)


def test_scans_are_those_that_a_decoder_reads():
    assert num_scans(PLAIN) == 1
    assert num_scans(PROGRESSIVE) == 10  # of libjpeg's default
    assert num_scans(encoded(photo=RGB.convert("L"), progressive=True)) == 6
    for kind in ("PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"):
        assert num_scans(encoded(kind)) == 0
    # Of thumbnails, comments and what follows the photo, none.
    thumbnail = b"Exif\0\0" + PROGRESSIVE
    other = encoded(progressive=True, exif=thumbnail, comment=b"\xff\xda\0\2" * 9)
    assert num_scans(other + PROGRESSIVE) == 10
    # Of plain ones, none behind the first with all components; decoders stop there.
    scan = PLAIN[PLAIN.index(b"\xff\xda") : -2]
    assert num_scans(PLAIN[:-2] + 3 * scan + PLAIN[-2:]) == 1
    # But all where it has one component of three.
    one = PLAIN.replace(b"\xff\xda\0\x0c\3", b"\xff\xda\0\x0c\1")
    assert num_scans(one[:-2] + 3 * scan + one[-2:]) == 4


def test_markers_without_a_segment_hide_nothing():
    start = b"\xff\xd8\xff\xc2\0\x02"
    scan = b"\xff\xda\0\x02"
    for code in (0x01, 0x02, 0xBF, 0xD0, 0xFF):
        hidden = bytes([0xFF, code]) + b"\0\x20"
        assert num_scans(start + hidden + scan + b"\xff\0" + scan) == 2
    assert num_scans(start + b"\xff\xe1\0\x06" + scan) == 0
    for cut in range(len(PROGRESSIVE)):
        assert num_scans(PROGRESSIVE[:cut]) <= 10
    assert list(segments(b"\xff\xd8\xff\xfe")) == [(0xFE, 4)]


def test_a_photo_with_too_many_scans_is_refused_wherever_it_is_decoded(
    monkeypatch, tmp_path
):
    path = tmp_path / "a.jpg"
    path.write_bytes(PROGRESSIVE)
    pixels = 40 * 60
    augmentation = Augmentation(size=32)
    rng = np.random.default_rng(0)
    readers = {
        "prepare": lambda: process_photo(PROGRESSIVE, PhotoProcessing()),
        "shrink": lambda: process_photo(PROGRESSIVE, PhotoProcessing(8)),
        "index, query, embed": lambda: view_of(path, "a.jpg", 32).pixels(),
        "sizes": lambda: view_of(path, "a.jpg", 32).size(),
        "eval": lambda: View(PROGRESSIVE, "a.jpg", None, 32).pixels(),
        "train": lambda: augmentation.view(PROGRESSIVE, "a.jpg", rng),
        "validation": lambda: decoding.decode_fast(PROGRESSIVE, "a.jpg"),
    }
    monkeypatch.setattr(decoding, "MAX_SCANNED_PIXELS", 10 * pixels)
    for read in readers.values():
        read()
    monkeypatch.setattr(decoding, "MAX_SCANNED_PIXELS", 10 * pixels - 1)
    message = "its 10 scans of 60 x 40 pixels take too long to decode; save it as a"
    for read in readers.values():
        with pytest.raises((UserError, BadPhotoError), match=message):
            read()
    to_check = PhotoToCheck("a.jpg", PROGRESSIVE)
    (checked,) = check_batch(1, 10_000, [to_check], lambda done: None)
    assert checked.defect.problem == "broken" and message in checked.defect.detail
    decoding.decode_fast(PLAIN, "a")
