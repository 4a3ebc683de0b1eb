"""Searches an index of photos."""

from pathlib import Path
from typing import Annotated

import tyro

from tokret.api import open_index
from tokret.commands.index import log
from tokret.errors import UserError
from tokret.io.atomic_files import write_whole
from tokret.search.querying import SearchResults, parse_box
from tokret.search.results_page import render


def main(
    photo: Annotated[Path, tyro.conf.Positional],
    index: Path,
    box: str | None = None,
    top: int = 20,
    report: Path | None = None,
    checkpoint: Path | None = None,
) -> None:
    """Search an index for the photos most similar to a photo, or to a part of it.

    Args:
      photo: the query.
      index: the folder of the index.
      box: x0,y0,x1,y1 in pixels: the part of the photo to search for.
      top: how many photos to print.
      report: also write a page to look at, FILE.html.
      checkpoint: where the weights are now, if they were moved.
    """
    part = parse_box(box)
    if report is not None:
        _check_page(report)

    results = open_index(index, checkpoint).query(photo, top, part)
    log(to_text(results))
    if report is not None:
        write_whole(report, render(results, photo, part))
        log(f"written: {report}")


def _check_page(page: Path) -> None:
    """Refuses a page that cannot be written, before anything is computed."""
    if page.suffix not in (".html", ".htm") or page.is_dir():
        raise UserError(f"report={page} must be a file that ends in .html")
    if not page.parent.is_dir():
        raise UserError(f"report={page}: make the folder {page.parent} first")


def to_text(results: SearchResults) -> str:
    """Results as lines: rank, cosine, path."""
    lines = [
        f"{rank:>4}  {hit.score:.4f}  {results.root / hit.name}"
        for rank, hit in enumerate(results.hits, 1)
    ]
    return "\n".join(
        [
            *lines,
            f"{results.num_photos} photos searched in "
            f"{1000 * results.search_seconds:.0f} ms; the query's descriptor took "
            f"{results.extract_seconds:.1f} s",
        ]
    )
