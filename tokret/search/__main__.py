r"""Search in photos of your own.

    python -m tokret.search index DIR --checkpoint=RUN --index=INDEX
    python -m tokret.search query PHOTO --index=INDEX [--box=x0,y0,x1,y1] [--top=20] \
        [--report=FILE.html]

index extracts descriptors of all photos below DIR (jpg, jpeg, png, webp; turned by
their EXIF) with the model of a run of train.py, of a conversion, or of one checkpoint.
The same command again adds new photos, removes those that are gone, and resumes after a
kill. query prints the photos most similar to PHOTO, or to the part of it in --box, with
the cosine of their descriptors.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from tokret import command_line
from tokret.errors import UserError, exit_status
from tokret.io.atomic_files import write_whole
from tokret.search.catalogue import ModelInfo
from tokret.search.extractor import Extractor, load_extractor
from tokret.search.indexing import SEGMENTS, update_index
from tokret.search.page import render
from tokret.search.querying import SearchResults, parse_box, query_index

SHOWN = 10  # bad photos that are named


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; python -m tokret.search --help lists all")


def _flags() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m tokret.search",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    index = commands.add_parser("index", allow_abbrev=False)
    index.add_argument("photos", metavar="DIR", help="folder of photos")
    index.add_argument("--checkpoint", required=True, help="folder of the weights")
    index.add_argument("--longest_side", type=int, help="of a photo, in pixels")
    index.add_argument("--scales", help="factors of the sides, as 1,0.7")
    index.add_argument(
        "--ema",
        action="store_true",
        help="the EMA of the weights",
    )
    query = commands.add_parser("query", allow_abbrev=False)
    query.add_argument("photo", metavar="PHOTO", help="the query")
    query.add_argument("--box", help="x0,y0,x1,y1 in pixels: a part of the query")
    query.add_argument("--top", type=int, default=20, help="how many photos")
    query.add_argument("--report", help="also a page to look at, FILE.html")
    query.add_argument("--checkpoint", help="folder of the weights, if they moved")
    for command in (index, query):
        command.add_argument("--index", required=True, help="folder of the index")
    return parser


def log(line: str) -> None:
    """Prints a line at once."""
    print(line, flush=True)


def index(
    photos: str,
    index: str,
    checkpoint: str,
    longest_side: int | None,
    scales: str | None,
    ema: bool,
) -> None:
    """Creates or updates an index, and prints what changed."""

    def load(segments: Path) -> Extractor:
        factors = None if scales is None else [float(s) for s in scales.split(",")]
        return load_extractor(
            _path(checkpoint), ema, longest_side, factors, segments, log
        )

    folder = _path(index)
    change = update_index(_path(photos), folder, load)
    if change.bad:
        log(f"{len(change.bad)} photos have no descriptor:")
        for name, why in list(change.bad.items())[:SHOWN]:
            log(f"  {why if name in why else f'{name}: {why}'}")
    if change.others:
        log(f"{change.others} other files skipped")
    log(
        f"{folder}: {change.photos} photos ({change.new} extracted now, "
        f"{change.gone} gone)"
    )


def query(
    photo: str,
    index: str,
    box: str | None,
    top: int,
    report: str | None,
    checkpoint: str | None,
) -> None:
    """Queries an index, and prints the results."""
    folder, query_photo, part = _path(index), _path(photo), parse_box(box)
    if report is not None:
        _check_page(_path(report))

    def load(model: ModelInfo) -> Extractor:
        where = _path(checkpoint or model.checkpoint)
        if checkpoint is None and not where.is_dir():
            raise UserError(
                f"the weights of --index={index} are gone from {where}; name their "
                "folder by --checkpoint"
            )
        return load_extractor(
            *(where, model.ema, model.longest_side, model.scales),
            *(folder / SEGMENTS, log),
        )

    results = query_index(folder, query_photo, part, top, load)
    log(to_text(results))
    if report is not None:
        write_whole(_path(report), render(results, query_photo, part))
        log(f"written: {report}")


def _check_page(page: Path) -> None:
    """Refuses a page that cannot be written, before anything is computed."""
    if page.suffix not in (".html", ".htm") or page.is_dir():
        raise UserError(f"--report={page} must be a file that ends in .html")
    if not page.parent.is_dir():
        raise UserError(f"--report={page}: make the folder {page.parent} first")


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


def _path(text: str) -> Path:
    return Path(text).expanduser()


COMMANDS: dict[str, Callable[..., None]] = {"index": index, "query": query}


def main() -> None:
    """Reads the flags."""
    fields: dict[str, Any] = vars(_flags().parse_args())
    command_line.quieten()
    COMMANDS[fields.pop("command")](**fields)


if __name__ == "__main__":
    sys.exit(exit_status(main))
