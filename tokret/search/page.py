"""An answer to look at: one HTML file that holds its pictures and needs no network."""

import base64
import hashlib
from importlib import resources
from pathlib import Path
from string import Template

from tokret.data.views import Box
from tokret.errors import UserError
from tokret.retrieval.report.text import escaped
from tokret.retrieval.report.thumbnails import box_shares, thumbnail
from tokret.search.photos import read_view
from tokret.search.querying import Answer

QUESTION_SIDE = 480  # of the photo that asks, in pixels
HIT_SIDE = 240


def render(answer: Answer, photo: Path, box: Box | None) -> str:
    """Writes the page.

    Args:
      answer: what the index answered.
      photo: what asked.
      box: the part of it that asked, in pixels of the upright photo; None for all.

    Returns:
      HTML that names no other file.

    Raises:
      UserError: if the photo that asked can no longer be read.
    """
    style = _part("answer.css")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    hits = [
        _hit(rank, answer.root / hit.name, hit.name, hit.score)
        for rank, hit in enumerate(answer.hits, 1)
    ]
    facts = (
        f"{answer.photos:,} photos of <bdi>{escaped(answer.root)}</bdi> searched in "
        f"{1000 * answer.searching:.0f} ms. The number beside a rank is the cosine of "
        "the two descriptors."
    )
    return Template(_part("answer.html")).substitute(
        style=style,
        style_hash=f"sha256-{digest}",
        title=escaped(f"Photos most like {photo.name}"),
        name=escaped(photo.name),
        question=_picture(photo, photo.name, QUESTION_SIDE),
        box=_box(photo, box),
        facts=facts,
        hits="\n".join(hits),
    )


def _part(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _picture(path: Path, name: str, side: int) -> str:
    encoded = thumbnail(read_view(path, name, None, side), side)
    data = base64.b64encode(encoded).decode()
    return f'<img src="data:image/webp;base64,{data}" alt="{escaped(name)}">'


def _hit(rank: int, path: Path, name: str, score: float) -> str:
    try:
        picture = _picture(path, name, HIT_SIDE)
    except UserError as error:  # it was there when it was indexed
        picture = f'<div class="gone">{escaped(error)}</div>'
    return (
        f"<li><figure>{picture}<figcaption><b>{rank}</b> {score:.3f}<br>"
        f"<bdi>{escaped(name)}</bdi></figcaption></figure></li>"
    )


def _box(photo: Path, box: Box | None) -> str:
    shares = box_shares(read_view(photo, photo.name, box, QUESTION_SIDE))
    if shares is None:
        return ""
    x0, y0, x1, y1 = shares
    rect = f'<rect x="{x0}" y="{y0}" width="{x1 - x0}" height="{y1 - y0}"/>'
    return (
        '<svg viewBox="0 0 1 1" preserveAspectRatio="none" aria-hidden="true">'
        f"{rect}{rect}</svg>"
    )
