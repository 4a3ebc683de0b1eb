"""Searches an index of photos."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from tokret.command_line import log
from tokret.data.decoding import MAX_PIXELS
from tokret.data.folders import PhotoWalk
from tokret.data.views import Box
from tokret.errors import UserError
from tokret.io.atomic_files import write_whole
from tokret.io.remote.fetching import require
from tokret.io.remote.outputs import prepare_file
from tokret.io.remote.uploading import publish
from tokret.io.remote.urls import url_of
from tokret.names import counted
from tokret.option_types import RemotePath, Text
from tokret.retrieval.html import pages
from tokret.retrieval.report.thumbnails import box_fractions, thumbnail
from tokret.runtime.compilation_cache import DEFAULT, keep_compiled
from tokret.search.filters import Filters
from tokret.search.photos import read_view
from tokret.search.queries import Query, SearchOptions, SearchResults, parse_box
from tokret.search.result_formats import to_csv, to_json, to_text
from tokret.search.service_client import search_by_service

QUERY_SIDE = 480  # of the query, in pixels
HIT_SIDE = 240
Repeated = tyro.conf.UseAppendAction  # an option that may be given several times


def main(
    photos: Annotated[tuple[RemotePath, ...], tyro.conf.Positional],
    index: RemotePath,
    box: str | None = None,
    top: int = 20,
    together: bool = False,
    unlike: Annotated[tuple[RemotePath, ...], Repeated] = (),
    folder: Annotated[tuple[Text, ...], Repeated] = (),
    label: Annotated[tuple[Text, ...], Repeated] = (),
    leave_out_query: bool = False,
    near_duplicates: Literal["show", "hide"] = "show",
    format: Literal["text", "json", "csv"] = "text",  # noqa: A002 (the option's name)
    report: RemotePath | None = None,
    engine: str = "",
    root: Path | None = None,
    max_pixels: int = MAX_PIXELS,
    compilation_cache: str = DEFAULT,
) -> None:
    """Search an index for the photos most similar to photos, or to a part of one.

    A running `tokret serve` of the index answers, if there is one.

    Args:
      photos: the queries; of a folder all photos in it. Each is a query of its own.
      index: the folder of the index.
      box: x0,y0,x1,y1 in pixels: the part of the only photo to search for.
      top: how many photos to print for each query.
      together: search for what resembles all the photos, as one query.
      unlike: a photo that results should not resemble; may be given several times.
      folder: search only photos in this folder or below it, a path from the index's
        root; may be given several times.
      label: search only photos whose own folder has this name; may be given several
        times.
      leave_out_query: skip photos with the same content as the query's.
      near_duplicates: hide: skip photos that are nearly the same as a better result.
      format: text, json or csv.
      report: also write a page to look at, FILE.html, of one query.
      engine: which searches: exact, or a URL; by default the index's own.
      root: the folder where the index's photos are now, if they were moved.
      max_pixels: of a photo, as of `tokret index`.
      compilation_cache: folder of compiled programs; "" keeps none.
    """
    part = parse_box(box)
    options = SearchOptions(
        top,
        Filters(tuple(name.strip("/") for name in folder), label),
        leave_out_query,
        near_duplicates == "hide",
    )
    queries = _queries(photos, unlike, part, together)
    if report is not None:
        check_page(report)
        if len(queries) > 1:
            raise UserError(f"report: is of one query, and there are {len(queries)}")

    found: Iterable[SearchResults] | None = None
    if root is None and not engine and max_pixels == MAX_PIXELS:
        found = search_by_service(index, queries, options)
    if found is None:
        from tokret.api import (
            Index,  # imports jax, which a service's answer does not need
        )
        from tokret.search.querying import search_photos

        keep_compiled(compilation_cache)
        searcher = Index(index, root).searcher(hold=False, engine=engine)
        found = search_photos(searcher, queries, options, max_pixels)
    results = list(_print(found, format, len(queries) > 1))
    if report is not None:
        page = render(results[0], photos[0], part, max_pixels)
        write_whole(report.resolve(), page)
        publish(report)
        log(f"written: {report}")
    _raise_errors(results)


def _queries(
    photos: Sequence[Path], unlike: Sequence[Path], box: Box | None, together: bool
) -> list[Query]:
    """What to search for; photos that have a URL are fetched."""
    if not photos:
        raise UserError("photos: is missing; name one or more, or a folder")
    files = [file for photo in photos for file in _files(photo)]
    others = tuple(require(photo) for photo in unlike)
    if box is not None and len(files) > 1:
        raise UserError(f"box: is of one photo, and there are {len(files)}")
    if together:
        return [Query(tuple(files), others, box)]
    return [Query((file,), others, box) for file in files]


def _files(photo: Path) -> list[Path]:
    if not photo.is_dir():
        return [require(photo)]
    found = sorted(PhotoWalk(photo).photos())
    if not found:
        raise UserError(f"{photo} has no photo; name a folder that has")
    return found


def _print(
    found: Iterable[SearchResults], form: str, headed: bool
) -> Iterator[SearchResults]:
    """Prints results; those of several queries as text as soon as they are there."""
    if form == "text":
        for results in found:
            if headed:
                log(f"{results.query}:")
            log(to_text(results))
            yield results
        return
    several = list(found)
    for line in [to_json(several)] if form == "json" else to_csv(several):
        log(line)
    yield from several


def _raise_errors(several: Sequence[SearchResults]) -> None:
    """Raises a UserError if a query of several could not be read."""
    errors = [results.error for results in several if results.error]
    if errors:
        raise UserError(
            f"{len(errors)} of {counted(len(several), 'query', 'queries')} could not "
            f"be read; the first: {errors[0]}"
        )


def check_page(page: Path) -> None:
    """Refuses a page that cannot be written, before anything is computed."""
    if page.suffix not in (".html", ".htm") or page.is_dir():
        raise UserError(f"report={page} must be a file that ends in .html")
    if url_of(page) is None and not page.parent.is_dir():
        raise UserError(f"report={page}: make the folder {page.parent} first")
    prepare_file(page, "report")


def render(
    results: SearchResults, photo: Path, box: Box | None, max_pixels: int = MAX_PIXELS
) -> str:
    """Returns a page of HTML with its pictures in it.

    Raises:
      UserError: if the query can no longer be read.
    """
    hits = [
        (hit, *page_thumbnail(results.root, hit.name, max_pixels))
        for hit in results.hits
    ]
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


def page_thumbnail(
    root: Path, name: str, max_pixels: int = MAX_PIXELS
) -> tuple[bytes, str]:
    """A photo for a page as WebP, or why there is none."""
    try:
        view = read_view(root / name, name, None, HIT_SIDE, max_pixels)
        return thumbnail(view, HIT_SIDE), ""
    except UserError as changed:  # since it was indexed
        return b"", str(changed)
