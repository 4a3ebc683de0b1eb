"""A picture of the token maps of photos, for papers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from tokret.retrieval.answers import Answers
from tokret.retrieval.pictures import (
    CAPTION,
    GAP,
    INK,
    LEGEND,
    MARGIN,
    PAPER,
    ROW_GAP,
    TILE,
    draw_caption,
    font,
    letterboxed,
    write_picture,
)
from tokret.retrieval.report.token_maps import DARKEST, Maps, TokenMapper
from tokret.shapes import Float, UInt8


@dataclass(frozen=True)
class TokenRow:
    """A photo and its maps."""

    image: UInt8[np.ndarray, "h w 3"]  # [H, W, 3] uint8, RGB, what the model saw
    maps: Maps  # [L, h, w], weights from 0 to 1
    caption: str  # a few words, such as "query, AP 71.3"


def token_rows(
    answers: Answers, queries: Sequence[int], token_maps: TokenMapper
) -> list[TokenRow]:
    """Two rows a query: its photo, and the first of its ranking; none without maps."""
    views, captions = [], []
    for query, (first,) in zip(queries, answers.first(queries, 1), strict=True):
        views += [answers.queries[query], first.view]
        captions += [
            f"query, AP {100 * answers.precision[query]:.1f}",
            f"its first: {first.verdict}",
        ]
    maps = token_maps(views)
    return [
        TokenRow(view.pixels(), mine, caption)
        for view, mine, caption in zip(views, maps or [], captions, strict=bool(maps))
    ]


def shaded(
    image: UInt8[np.ndarray, "h w 3"], map_: Float[np.ndarray, "p q"]
) -> UInt8[np.ndarray, "h w 3"]:
    """A photo that is bright where a map, from 0 to 1, is large and dark elsewhere."""
    size = (image.shape[1], image.shape[0])
    weights = Image.fromarray(map_.astype(np.float32)).resize(
        size, Image.Resampling.BILINEAR
    )
    light = 1 - DARKEST * (1 - np.clip(np.asarray(weights), 0, 1))
    return (image * light[..., None]).round().astype(np.uint8)


def token_picture(rows: Sequence[TokenRow], path: str | Path) -> None:
    """Writes a PNG: a row for each photo, at least one, with it under each token's map.

    Raises:
      UserError: the file cannot be written.
    """
    columns = 1 + len(rows[0].maps)
    step = TILE + CAPTION + ROW_GAP
    width = 2 * MARGIN + columns * (TILE + GAP) - GAP
    height = 2 * MARGIN + LEGEND + len(rows) * step - ROW_GAP
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    for column in range(columns):
        left = MARGIN + column * (TILE + GAP)
        title = f"token {column}" if column else "photo"
        draw.text((left, MARGIN + 10), title, INK, font(18), anchor="lm")
        for number, row in enumerate(rows):
            top = MARGIN + LEGEND + number * step
            shown = shaded(row.image, row.maps[column - 1]) if column else row.image
            sheet.paste(letterboxed(shown, TILE)[0], (left, top))
            mean = f"{100 * float(row.maps[column - 1].mean()):.0f} %"
            draw_caption(draw, mean if column else row.caption, left, top, INK)
    write_picture(sheet, path)
