"""Searches an index of photos."""

from pathlib import Path
from typing import Annotated

import tyro

from tokret.api import Index
from tokret.command_line import log
from tokret.data.decoding import MAX_PIXELS
from tokret.data.views import Box
from tokret.errors import UserError
from tokret.io.atomic_files import write_whole
from tokret.io.remote.fetching import require
from tokret.io.remote.outputs import prepare_file
from tokret.io.remote.uploading import publish
from tokret.io.remote.urls import url_of
from tokret.names import counted, first_names, printable
from tokret.option_types import RemotePath
from tokret.retrieval.html import pages
from tokret.retrieval.report.thumbnails import box_fractions, thumbnail
from tokret.runtime.compilation_cache import DEFAULT, keep_compiled
from tokret.search.photos import read_view
from tokret.search.querying import SearchResults, parse_box

QUERY_SIDE = 480  # of the query, in pixels
HIT_SIDE = 240


def main(
    photo: Annotated[RemotePath, tyro.conf.Positional],
    index: RemotePath,
    box: str | None = None,
    top: int = 20,
    report: RemotePath | None = None,
    root: Path | None = None,
    max_pixels: int = MAX_PIXELS,
    compilation_cache: str = DEFAULT,
) -> None:
    """Search an index for the photos most similar to a photo, or to a part of it.

    Args:
      photo: the query.
      index: the folder of the index.
      box: x0,y0,x1,y1 in pixels: the part of the photo to search for.
      top: how many photos to print.
      report: also write a page to look at, FILE.html.
      root: the folder where the index's photos are now, if they were moved.
      max_pixels: of a photo, as of `tokret index`.
      compilation_cache: folder of compiled programs; "" keeps none.
    """
    keep_compiled(compilation_cache)
    part = parse_box(box)
    if report is not None:
        _check_page(report)
    require(photo)

    results = Index(index, root).query(photo, top, part, max_pixels)
    log(to_text(results))
    if report is not None:
        write_whole(report.resolve(), render(results, photo, part, max_pixels))
        publish(report)
        log(f"written: {report}")


def _check_page(page: Path) -> None:
    """Refuses a page that cannot be written, before anything is computed."""
    if page.suffix not in (".html", ".htm") or page.is_dir():
        raise UserError(f"report={page} must be a file that ends in .html")
    if url_of(page) is None and not page.parent.is_dir():
        raise UserError(f"report={page}: make the folder {page.parent} first")
    prepare_file(page, "report")


def to_text(results: SearchResults) -> str:
    """Results as lines: rank, cosine, path."""
    lines = [
        f"{rank:>4}  {hit.score:.4f}  {printable(str(results.root / hit.name))}"
        for rank, hit in enumerate(results.hits, 1)
    ]
    lines.append(
        f"{counted(results.num_photos, 'photo')} searched in "
        f"{1000 * results.search_seconds:.0f} ms; the query's descriptor took "
        f"{results.extract_seconds:.1f} s"
    )
    if results.gone:
        lines.append(
            f"{len(results.gone)} of these are gone from {printable(str(results.root))}"
            f" ({first_names(results.gone)}); index again, or name the folder where "
            "they are now: --root"
        )
    return "\n".join(lines)


def render(
    results: SearchResults, photo: Path, box: Box | None, max_pixels: int = MAX_PIXELS
) -> str:
    """Returns a page of HTML with its pictures in it.

    Raises:
      UserError: if the query can no longer be read.
    """
    hits = []
    for hit in results.hits:
        webp, error = b"", ""
        try:
            path = results.root / hit.name
            view = read_view(path, hit.name, None, HIT_SIDE, max_pixels)
            webp = thumbnail(view, HIT_SIDE)
        except UserError as changed:  # since it was indexed
            error = str(changed)
        hits.append((hit, webp, error))
    view = read_view(photo, photo.name, box, QUERY_SIDE, max_pixels)
    return pages.render(
        "tokret.search",
        "results",
        name=photo.name,
        query=thumbnail(view, QUERY_SIDE),
        box=box_fractions(view),
        results=results,
        hits=hits,
    )
