"""Photos for the page: decoded, shrunk and encoded again, never a file's own bytes."""

import dataclasses
import io

import numpy as np
from PIL import Image

from tokret.data.decoding import open_photo
from tokret.data.views import View

QUALITY = 74  # of WebP


def thumbnail(view: View, side: int) -> bytes:
    """The whole photo of a view as WebP without metadata, at most `side` pixels long.

    Raises:
      UserError: if the photo cannot be decoded.
    """
    whole = dataclasses.replace(view, box=None, longest_side=side)
    buffer = io.BytesIO()
    Image.fromarray(whole.pixels()).save(buffer, "WEBP", quality=QUALITY)
    return buffer.getvalue()


def box_fractions(view: View) -> tuple[float, float, float, float] | None:
    """A view's box (x0, y0, x1, y1) as fractions of its photo's sides, or None."""
    if view.box is None:
        return None
    width, height = open_photo(view.encoded, view.name).size
    x0, y0, x1, y1 = view.box
    sides = np.array([x0 / width, y0 / height, x1 / width, y1 / height])
    left, top, right, bottom = sides.clip(0.0, 1.0).tolist()
    return left, top, right, bottom
