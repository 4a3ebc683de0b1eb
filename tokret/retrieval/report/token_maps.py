"""Attention maps of tokens: the tokenizer's weights (paper, section 3.3)."""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from PIL import Image

from tokret.config.tree import ExtractionConfig
from tokret.data.views import View
from tokret.models.preprocessing import normalise
from tokret.models.retrieval_net import RetrievalNet
from tokret.shapes import Array, Float, Int, UInt8

MAX_TOKENS = 16  # NetVLAD has 64 clusters: too many to compare by eye
STRIDE = 32  # sides of a canvas are multiples of it
LEVELS = 16  # of darkness: four bits a position
DARKEST = 0.84  # taken off a photo's brightness where a map is 0

Maps = Float[np.ndarray, "l p q"]
# Views -> the maps of each; None for a head without maps.
TokenMapper = Callable[[Sequence[View]], list[Maps] | None]


def has_token_maps(fields: Mapping[str, Any]) -> bool:
    """Whether a model of these fields, `config.model`, has maps of its tokens."""
    number = {"token": "tokens", "netvlad": "clusters"}.get(fields["head"])
    return number is not None and fields[number] <= MAX_TOKENS


def make_token_mapper(
    model: RetrievalNet, variables: Any, settings: ExtractionConfig
) -> TokenMapper:
    """Makes a function that computes the token maps of photos at scale 1.

    Returns:
      A function of views to maps [L, h, w] of each, within the view's true size; at
      every position they sum to 1. It returns None if the model's intermediates have
      no maps, or more than `MAX_TOKENS`.
    """

    @jax.jit
    def attention(
        images: UInt8[Array, "b h w 3"], sizes: Int[Array, "b 2"]
    ) -> Float[Array, "b l p q"] | None:
        pixels = normalise(images, model.pixels)
        maps: Any = model.apply(variables, pixels, sizes, train=False)[1]
        found: Float[Array, "b l p q"] | None = maps.get("attention")
        return found if found is not None and found.shape[1] <= MAX_TOKENS else None

    def token_maps(views: Sequence[View]) -> list[Maps] | None:
        sizes = np.array([view.size() for view in views], np.int32).reshape(-1, 2)
        height, width = -(-sizes.max(axis=0) // STRIDE) * STRIDE
        found: list[Maps] = []
        for start in range(0, len(views), settings.batch_size):
            batch = np.zeros((settings.batch_size, height, width, 3), np.uint8)
            true = np.ones((settings.batch_size, 2), np.int32)
            some = views[start : start + settings.batch_size]
            for row, view in enumerate(some):
                pixels = view.pixels()
                true[row] = pixels.shape[:2]
                batch[row, : true[row, 0], : true[row, 1]] = pixels
            maps = attention(batch, true)
            if maps is None:
                return None
            found += [within_photo(np.asarray(each, np.float32)) for each in maps]
        return found[: len(views)]

    return token_maps


def within_photo(maps: Float[np.ndarray, "l h w"]) -> Maps:
    """Removes the padding: the maps sum to 1 in the photo and to 0 outside of it."""
    inside = maps.sum(axis=0) > 0.5
    rows, columns = inside.any(axis=1).sum(), inside.any(axis=0).sum()
    return maps[:, :rows, :columns]


def overlay(map_: Float[np.ndarray, "p q"]) -> bytes:
    """A map as a PNG to lay over a photo: black where it is 0, transparent where 1."""
    levels = np.clip(np.round(map_ * (LEVELS - 1)), 0, LEVELS - 1).astype(np.uint8)
    image = Image.frombytes("P", (levels.shape[1], levels.shape[0]), levels.tobytes())
    image.putpalette([0] * 3 * LEVELS)
    darkness = np.linspace(255 * DARKEST, 0, LEVELS).round().astype(np.uint8).tobytes()
    buffer = io.BytesIO()
    image.save(buffer, "PNG", bits=4, transparency=darkness)
    return buffer.getvalue()
