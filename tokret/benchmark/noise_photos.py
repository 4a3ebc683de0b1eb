"""Noise with the spectrum of photos, for timings without any photos."""

import io

import numpy as np
from PIL import Image

from tokret.shapes import Float

# Amplitude falls as frequency to this power. In photos it is about 1; a little more
# compensates for the flat areas that noise lacks: a JPEG of quality 90 then takes 2.1
# bits a pixel, as photos do.
FALL = 1.4
CONTRAST = 40.0  # standard deviation of the brightness
COLOUR = 0.25  # that of each colour difference, as a fraction
QUALITY = 90


def noise_photo(seed: int, height: int = 768, width: int = 1024) -> bytes:
    """Makes a JPEG of noise, the same for the same seed."""
    rng = np.random.default_rng(seed)
    luma = 118 + CONTRAST * _noise(rng, height, width)
    blue, red = (CONTRAST * COLOUR * _noise(rng, height, width) for _ in range(2))
    green = luma - 0.344 * blue - 0.714 * red
    channels = np.stack((luma + 1.402 * red, green, luma + 1.772 * blue), axis=-1)
    pixels = np.clip(np.rint(channels), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def numbered(photo: bytes, number: int) -> bytes:
    """Returns a JPEG as another file: with a number in a comment."""
    comment = f"{number:012d}".encode()
    marker = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big")
    return photo[:2] + marker + comment + photo[2:]


def _noise(
    rng: np.random.Generator, height: int, width: int
) -> Float[np.ndarray, "height width"]:
    """Noise of mean 0 and deviation 1 whose amplitude falls by `FALL`."""
    down, across = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    frequency = np.hypot(down, across)
    frequency[0, 0] = np.inf
    parts = rng.standard_normal((2, *frequency.shape))
    noise = np.fft.irfft2((parts[0] + 1j * parts[1]) / frequency**FALL, (height, width))
    return np.asarray(noise / noise.std())
