"""Search results -> one HTML file with its pictures in it."""

from pathlib import Path

from tokret.data.views import Box
from tokret.errors import UserError
from tokret.retrieval.html import pages
from tokret.retrieval.report.thumbnails import box_fractions, thumbnail
from tokret.search.photos import read_view
from tokret.search.querying import SearchResults

QUERY_SIDE = 480  # of the query, in pixels
HIT_SIDE = 240


def render(results: SearchResults, photo: Path, box: Box | None) -> str:
    """Writes the page.

    Args:
      results: of the query.
      photo: the query.
      box: its part that was searched for, in pixels of the upright photo; None for all.

    Returns:
      HTML that names no other file.

    Raises:
      UserError: if the query can no longer be read.
    """
    hits = []
    for hit in results.hits:
        webp, error = b"", ""
        try:
            path = results.root / hit.name
            webp = thumbnail(read_view(path, hit.name, None, HIT_SIDE), HIT_SIDE)
        except UserError as changed:  # since it was indexed
            error = str(changed)
        hits.append((hit, webp, error))
    view = read_view(photo, photo.name, box, QUERY_SIDE)
    return pages.render(
        __package__,
        "results",
        name=photo.name,
        query=thumbnail(view, QUERY_SIDE),
        box=box_fractions(view),
        results=results,
        hits=hits,
    )
