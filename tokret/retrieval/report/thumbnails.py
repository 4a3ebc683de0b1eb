"""Photos for the page: decoded, shrunk and encoded anew, never a file's own bytes."""

import dataclasses
import io

from PIL import Image

from tokret.data.decoding import open_photo
from tokret.data.views import View

QUALITY = 74  # of WebP; the photos are looked at, not measured


def thumbnail(view: View, side: int) -> bytes:
    """The whole photo of a view, small.

    Args:
      view: its box is passed over.
      side: longest side in pixels; a smaller photo is not enlarged.

    Returns:
      A WebP file without any metadata.

    Raises:
      UserError: if the photo cannot be decoded.
    """
    whole = dataclasses.replace(view, box=None, longest_side=side)
    buffer = io.BytesIO()
    Image.fromarray(whole.pixels()).save(buffer, "WEBP", quality=QUALITY)
    return buffer.getvalue()


def box_shares(view: View) -> tuple[float, float, float, float] | None:
    """Where a view's box lies in its photo.

    Returns:
      x0, y0, x1, y1 as shares of the photo's sides, within 0 and 1; None without a box.
    """
    if view.box is None:
        return None
    width, height = open_photo(view.encoded, view.name).size
    x0, y0, x1, y1 = view.box
    shares = (x0 / width, y0 / height, x1 / width, y1 / height)
    left, top, right, bottom = (min(max(share, 0.0), 1.0) for share in shares)
    return left, top, right, bottom
