"""A picture of rankings: queries, and the first results of each."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tokret.data.decoding import decode_fast
from tokret.data.views import Box, View
from tokret.io.atomic_files import write_whole
from tokret.retrieval.answers import Answers, Verdict
from tokret.shapes import Float, UInt8

# Okabe and Ito's green and vermilion: apart for the colour-blind too.
COLOURS: dict[Verdict, str] = {"hit": "#009e73", "miss": "#d55e00", "junk": "#a3a3a3"}
MEANINGS: dict[Verdict, str] = {
    "hit": "right",
    "miss": "wrong",
    "junk": "junk, not counted",
}
BOX_COLOUR = "#f0c800"
PAPER, INK, FAINT, TILE_GROUND = "#ffffff", "#1c1c1c", "#6b6b6b", "#efefef"
# All in pixels.
TILE, BORDER, GAP, QUERY_GAP = 160, 5, 10, 30
MARGIN, LEGEND, CAPTION, ROW_GAP = 24, 44, 24, 18
RESULTS = 10
MARK = 20


@dataclass(frozen=True)
class Result:
    """One item of a ranking."""

    image: UInt8[np.ndarray, "h w 3"]  # [H, W, 3] uint8, RGB
    verdict: Verdict  # whether it is a positive
    score: float  # its similarity to the query


@dataclass(frozen=True)
class RankingRow:
    """One query and the beginning of its ranking."""

    image: UInt8[np.ndarray, "h w 3"]  # [H, W, 3] uint8, RGB, the whole photo
    box: Box | None  # in the photo's pixels; None where all of it is the query
    caption: str  # a few words, such as "AP 71.3"
    results: Sequence[Result]  # best first; the first ten are shown


def pick_queries(
    average_precision: Float[np.ndarray, " q"], count: int = 9
) -> list[int]:
    """Picks at most `count` queries with positives, evenly from best to worst."""
    order = np.argsort(-average_precision, kind="stable")
    valid = order[~np.isnan(average_precision[order])]
    places = np.linspace(0, len(valid) - 1, min(count, len(valid))).round()
    return valid[places.astype(int)].tolist()


def ranking_rows(answers: Answers) -> list[RankingRow]:
    """The rankings of the best query, the worst, and others evenly between."""
    picked = pick_queries(answers.precision)
    rows = []
    for query, ranking in zip(picked, answers.first(picked, RESULTS), strict=True):
        results = [Result(whole(r.view), r.verdict, r.score) for r in ranking]
        view = answers.queries[query]
        caption = f"AP {100 * answers.precision[query]:.1f}"
        rows.append(RankingRow(whole(view), view.box, caption, results))
    return rows


def whole(view: View) -> UInt8[np.ndarray, "h w 3"]:
    """The whole photo of a view, in its own size."""
    return decode_fast(view.encoded, view.name)


def ranking_picture(rows: Sequence[RankingRow], path: str | Path) -> None:
    """Writes a PNG: one row a query, its first ten results beside it, a legend on top.

    Raises:
      UserError: the file cannot be written.
    """
    step = TILE + CAPTION + ROW_GAP
    width = 2 * MARGIN + (RESULTS + 1) * TILE + (RESULTS - 1) * GAP + QUERY_GAP
    height = 2 * MARGIN + LEGEND + len(rows) * step - ROW_GAP
    sheet = Image.new("RGB", (width, height), PAPER)
    _draw_legend(sheet)
    for number, row in enumerate(rows):
        _draw_row(sheet, row, MARGIN + LEGEND + number * step)
    write_picture(sheet, path)


def write_picture(sheet: Image.Image, path: str | Path) -> None:
    """Writes a PNG, atomically.

    Raises:
      UserError: if it cannot be written.
    """
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    write_whole(Path(path), buffer.getvalue())


def _draw_legend(sheet: Image.Image) -> None:
    draw = ImageDraw.Draw(sheet)
    middle, side = MARGIN + 10, 18
    draw.text((MARGIN, middle), "query", INK, font(18), anchor="lm")
    left = MARGIN + TILE + QUERY_GAP
    draw.text((left, middle), "best ten, from the left", INK, font(18), anchor="lm")
    right = sheet.width - MARGIN
    marks = {"query box": BOX_COLOUR} | {MEANINGS[x]: COLOURS[x] for x in MEANINGS}
    for text, colour in reversed(marks.items()):
        right -= int(draw.textlength(text, font(16)))
        draw.text((right, middle), text, INK, font(16), anchor="lm")
        right -= side + 8
        corner = (right, middle - side // 2, right + side, middle + side // 2)
        draw.rectangle(corner, outline=colour, width=4)
        right -= 28


def _draw_row(sheet: Image.Image, row: RankingRow, top: int) -> None:
    draw = ImageDraw.Draw(sheet)
    _draw_query(sheet, row, top)
    draw_caption(draw, row.caption, MARGIN, top, INK)
    for number, result in enumerate(row.results[:RESULTS]):
        left = MARGIN + TILE + QUERY_GAP + number * (TILE + GAP)
        frame = (left, top, left + TILE - 1, top + TILE - 1)
        draw.rectangle(frame, fill=COLOURS[result.verdict])
        inner = TILE - 2 * BORDER
        tile, _ = letterboxed(result.image, inner)
        sheet.paste(tile, (left + BORDER, top + BORDER))
        _draw_mark(draw, result.verdict, left + BORDER, top + BORDER)
        draw_caption(draw, f"{result.score:.3f}", left, top, FAINT)


def _draw_mark(
    draw: ImageDraw.ImageDraw, verdict: Verdict, left: int, top: int
) -> None:
    """A tick, a cross or a ring: some readers cannot distinguish the colours."""
    ground = (left, top, left + MARK, top + MARK)
    draw.rectangle(ground, fill=COLOURS[verdict])
    if verdict == "junk":
        draw.ellipse((left + 5, top + 5, left + 15, top + 15), outline=PAPER, width=2)
        return
    strokes = {
        "hit": [((4, 11), (8, 15)), ((8, 15), (16, 5))],
        "miss": [((5, 5), (15, 15)), ((15, 5), (5, 15))],
    }
    for start, end in strokes[verdict]:
        ends = [(left + x, top + y) for x, y in (start, end)]
        draw.line(ends, fill=PAPER, width=3)


def _draw_query(sheet: Image.Image, row: RankingRow, top: int) -> None:
    tile, (x, y, scale) = letterboxed(row.image, TILE)
    if row.box is not None:
        x0, y0, x1, y1 = row.box
        corners = (x + x0 * scale, y + y0 * scale, x + x1 * scale, y + y1 * scale)
        inside = [min(max(round(side), 0), TILE - 1) for side in corners]
        draw = ImageDraw.Draw(tile)
        # Dark on both sides of the line: it shows on bright photos too.
        draw.rectangle(inside, outline=INK, width=5)
        x0, y0, x1, y1 = inside
        if x1 - x0 > 2 and y1 - y0 > 2:
            bright = (x0 + 1, y0 + 1, x1 - 1, y1 - 1)
            draw.rectangle(bright, outline=BOX_COLOUR, width=3)
    sheet.paste(tile, (MARGIN, top))


def letterboxed(
    image: UInt8[np.ndarray, "h w 3"], side: int
) -> tuple[Image.Image, tuple[int, int, float]]:
    """The whole image within a square, and its offset x, y and scale there."""
    height, width, _ = image.shape
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    x, y = (side - size[0]) // 2, (side - size[1]) // 2
    tile = Image.new("RGB", (side, side), TILE_GROUND)
    small = Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)
    tile.paste(small, (x, y))
    return tile, (x, y, scale)


def draw_caption(
    draw: ImageDraw.ImageDraw, text: str, left: int, top: int, colour: str
) -> None:
    """Centred under a tile; smaller, then cut, where it is too long for it."""
    size = 16
    while size > 11 and draw.textlength(text, font(size)) > TILE:
        size -= 1
    while draw.textlength(text, font(size)) > TILE:
        text = text[:-4] + "..."
    middle = (left + TILE // 2, top + TILE + CAPTION // 2 + 2)
    draw.text(middle, text, colour, font(size), anchor="mm")


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The pictures' letters, in pixels."""
    return ImageFont.load_default(size)
