"""Light and weather on a rendered scene, and the faults of cameras."""

from dataclasses import dataclass

import cv2
import numpy as np

from tokret.data.synthetic_landmarks.materials import OPAQUE
from tokret.shapes import Bool, Float, UInt8

RGB = Float[np.ndarray, " 3"]


@dataclass(frozen=True)
class Light:
    """The light on the scene; colours as factors, or 0 to 255 for the sky."""

    direction: RGB  # [3] towards the sun, length 1
    sun: RGB  # [3] on a surface that faces the sun
    ambient: RGB  # [3] on every surface
    flood: RGB  # [3] on the landmark's walls at night, from below
    glow: float  # brightness of lit windows, 0 to 1
    zenith: RGB  # [3] the sky above
    horizon: RGB  # [3] the sky at the horizon, and the haze
    clouds: float  # contrast of the clouds, 0 to 1
    # opacity of the haze, in the horizon's colour, at the landmark's distance, 0 to 1
    haze: float


def _rgb(*values: float) -> RGB:
    return np.array(values, np.float32)


# sun, ambient, flood, glow, zenith, horizon, most haze
_NONE = _rgb(0.0, 0.0, 0.0)
_KINDS = {
    "sun": (_rgb(0.72, 0.68, 0.6), _rgb(0.48, 0.5, 0.56), _NONE, 0.0,
            _rgb(84.0, 138.0, 208.0), _rgb(190.0, 212.0, 232.0), 0.12),
    "golden": (_rgb(0.82, 0.62, 0.42), _rgb(0.44, 0.42, 0.48), _NONE, 0.15,
               _rgb(120.0, 136.0, 180.0), _rgb(250.0, 200.0, 150.0), 0.2),
    "overcast": (_rgb(0.12, 0.12, 0.12), _rgb(0.66, 0.68, 0.72), _NONE, 0.05,
                 _rgb(168.0, 174.0, 182.0), _rgb(214.0, 216.0, 220.0), 0.2),
    "fog": (_rgb(0.05, 0.05, 0.05), _rgb(0.68, 0.7, 0.72), _NONE, 0.2,
            _rgb(190.0, 194.0, 198.0), _rgb(206.0, 208.0, 210.0), 0.6),
    "dusk": (_rgb(0.1, 0.08, 0.12), _rgb(0.44, 0.43, 0.52), _rgb(0.12, 0.1, 0.04), 0.7,
             _rgb(52.0, 66.0, 118.0), _rgb(208.0, 146.0, 130.0), 0.15),
    "night": (_rgb(0.03, 0.03, 0.05), _rgb(0.13, 0.15, 0.23), _rgb(0.42, 0.32, 0.16),
              1.0, _rgb(10.0, 14.0, 30.0), _rgb(44.0, 42.0, 58.0), 0.08),
}  # fmt: skip


def light_of(rng: np.random.Generator, kind: str, viewer: float) -> Light:
    """Draws the light of a photo, one of `photo_planning.LIGHTS`.

    `viewer` is the camera's azimuth in degrees: the sun is rarely behind the landmark.
    """
    sun, ambient, flood, glow, zenith, horizon, haze = _KINDS[kind]
    azimuth = np.radians(viewer + rng.normal(0, 50))
    high = np.radians(rng.uniform(6, 18) if kind == "golden" else rng.uniform(25, 65))
    direction = np.array(
        [
            np.sin(azimuth) * np.cos(high),
            -np.cos(azimuth) * np.cos(high),
            np.sin(high),
        ],
        np.float32,
    )
    tint = rng.normal(1, 0.03, 3).astype(np.float32)
    return Light(
        direction=direction,
        sun=sun * np.float32(rng.uniform(0.7, 1.15)),
        ambient=ambient * np.float32(rng.uniform(0.85, 1.15)),
        flood=flood * rng.uniform(0.5, 1.5, 3).astype(np.float32),
        glow=glow,
        zenith=zenith * tint,
        horizon=horizon * (1 + (tint - 1) / 2),
        clouds=float(rng.uniform(0, 1)),
        haze=float(haze * rng.uniform(0.2, 1)),
    )


def on_faces(
    light: Light, normals: Float[np.ndarray, "f 3"], two_sided: Bool[np.ndarray, " f"]
) -> Float[np.ndarray, "f 3"]:
    """Light on each face: sun by angle, sky by inclination, floodlight."""
    angle = normals @ light.direction
    angle = np.where(two_sided, np.abs(angle), np.maximum(angle, 0))[:, None]
    sky = 0.85 + 0.15 * normals[:, 2:]
    wall = (1 - np.abs(normals[:, 2:])) * light.flood
    return (light.sun * angle + light.ambient * sky + wall).astype(np.float32)


def lit(
    surface: UInt8[np.ndarray, "h w 4"],
    light: Float[np.ndarray, "h w 3"],
    glow: float,
) -> Float[np.ndarray, "h w 3"]:
    """Multiplies unlit colours by the light; windows glow."""
    image = surface[..., :3] * light
    if glow > 0:
        shine = np.maximum(surface[..., 3:].astype(np.float32) - OPAQUE, 0)
        image += shine * (glow / 127) * np.array([235, 180, 95], np.float32)
    return image


def develop(
    rng: np.random.Generator, image: Float[np.ndarray, "h w 3"], light: str, rough: bool
) -> UInt8[np.ndarray, "h w 3"]:
    """Turns the light in the lens, about 0 to 255, into a photo with a camera's faults.

    Rain and snow fall from clouds (`light` is one of `photo_planning.LIGHTS`); only a
    rough photo may be grey, and it is blurred and badly exposed more often.
    """
    height, width = image.shape[:2]
    strength = 1.5 if rough else 1.0
    # White balance varies between warm and cold, and a little between green and purple.
    warm, green = rng.normal(0, (0.045 * strength, 0.015 * strength))
    balance = np.exp([warm, green, -warm])
    exposure = np.exp(rng.normal(0.08, 0.08 * strength))
    image = image * (balance * exposure).astype(np.float32)
    if light in ("overcast", "fog") and rng.random() < 0.35:
        image = _precipitation(rng, image)
    grey = image.mean(axis=2, keepdims=True)
    saturation = 0.0 if rough and rng.random() < 0.03 else rng.uniform(0.65, 1.3)
    image = grey + (image - grey) * np.float32(saturation)
    image = np.clip(image / 255, 0, 1) ** np.float32(np.exp(rng.normal(-0.05, 0.08)))
    image = _vignette(image, float(rng.uniform(0, 0.35)))
    if rng.random() < 0.35 * strength:
        sigma = rng.uniform(0.3, 0.55 * strength) * max(height, width) / 160
        image = cv2.GaussianBlur(image, (0, 0), sigma)
    noise = rng.uniform(0.004, 0.015 * strength) * (1.6 if light == "night" else 1.0)
    image += rng.standard_normal(image.shape, dtype=np.float32) * np.float32(noise)
    return np.clip(image * 255 + 0.5, 0, 255).astype(np.uint8)


def _vignette(image: np.ndarray, amount: float) -> np.ndarray:
    height, width = image.shape[:2]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None, None] ** 2
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :, None] ** 2
    return image * (1 - np.float32(amount / 2) * (x + y))


def _precipitation(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Falling rain (streaks) or snow (flakes)."""
    height, width = image.shape[:2]
    layer: np.ndarray = np.zeros((height, width), np.uint8)
    snow = bool(rng.random() < 0.5)
    count = int(rng.integers(60, 200))
    points = (rng.random((count, 2)) * (width, height)).astype(int)
    slant = rng.integers(-2, 3)
    for x, y in points.tolist():
        end = (x, y) if snow else (x + int(slant), y + height // 20)
        cv2.line(layer, (x, y), end, 255, 1)
    layer = cv2.GaussianBlur(layer, (0, 0), 0.6)
    opacity = layer[..., None].astype(np.float32) / 255 * (0.8 if snow else 0.3)
    return image * (1 - opacity) + np.float32(225) * opacity


def encode(image: UInt8[np.ndarray, "h w 3"], quality: int) -> bytes:
    """Encodes an RGB photo as JPEG."""
    flags = [cv2.IMWRITE_JPEG_QUALITY, quality]
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, flags)[1].tobytes()
