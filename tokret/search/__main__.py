r"""Search in photos of your own.

    python -m tokret.search index DIR --checkpoint=RUN --index=INDEX
    python -m tokret.search query PHOTO --index=INDEX [--box=x0,y0,x1,y1] [--top=20] \
        [--report=FILE.html]

index describes all photos below DIR (jpg, jpeg, png, webp; turned as their EXIF says)
with the model of a run of train.py, of a conversion, or of one checkpoint. The same
command again adds what is new, drops what is gone, and goes on after a kill. query
prints the photos most like PHOTO, or like the part of it in --box, with the cosine of
their descriptors.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from tokret import command_line
from tokret.errors import UserError, exit_status
from tokret.io.atomic_files import write_whole
from tokret.search.catalogue import Maker
from tokret.search.extractor import Describer, load_describer
from tokret.search.indexing import PARTS, update_index
from tokret.search.page import render
from tokret.search.querying import SearchResults, ask, parse_box

SHOWN = 10  # bad photos that are named


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; python -m tokret.search --help says more")


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
        help="the exponential moving average of the weights",
    )
    query = commands.add_parser("query", allow_abbrev=False)
    query.add_argument("photo", metavar="PHOTO", help="the photo that asks")
    query.add_argument("--box", help="x0,y0,x1,y1 in pixels: the part that asks")
    query.add_argument("--top", type=int, default=20, help="photos wanted")
    query.add_argument("--report", help="also a page to look at, FILE.html")
    query.add_argument("--checkpoint", help="where the weights lie, if they moved")
    for command in (index, query):
        command.add_argument("--index", required=True, help="folder of the index")
    return parser


def tell(line: str) -> None:
    """Says at once what is going on."""
    print(line, flush=True)


def index(
    photos: str,
    index: str,
    checkpoint: str,
    longest_side: int | None,
    scales: str | None,
    ema: bool,
) -> None:
    """Makes or updates an index, and says what changed."""

    def describer(parts: Path) -> Describer:
        factors = None if scales is None else [float(s) for s in scales.split(",")]
        return load_describer(
            _path(checkpoint), ema, longest_side, factors, parts, tell
        )

    folder = _path(index)
    change = update_index(_path(photos), folder, describer)
    if change.bad:
        tell(f"{len(change.bad)} photos could not be described:")
        for name, why in list(change.bad.items())[:SHOWN]:
            tell(f"  {why if name in why else f'{name}: {why}'}")
    if change.others:
        tell(f"{change.others} other files passed over")
    tell(
        f"{folder}: {change.photos} photos ({change.new} looked at now, "
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
    """Asks an index, and prints what it answers."""
    folder, asking, part = _path(index), _path(photo), parse_box(box)
    if report is not None:
        _check_page(_path(report))

    def describer(maker: Maker) -> Describer:
        where = _path(checkpoint or maker.checkpoint)
        if checkpoint is None and not where.is_dir():
            raise UserError(
                f"the weights that made --index={index} are gone from {where}; name "
                "their folder by --checkpoint"
            )
        scales = maker.scales
        return load_describer(
            where, maker.ema, maker.longest_side, scales, folder / PARTS, tell
        )

    answer = ask(folder, asking, part, top, describer)
    tell(to_text(answer))
    if report is not None:
        write_whole(_path(report), render(answer, asking, part))
        tell(f"written: {report}")


def _check_page(page: Path) -> None:
    """Refuses a page that cannot be written, before anything is computed."""
    if page.suffix not in (".html", ".htm") or page.is_dir():
        raise UserError(f"--report={page} must be a file that ends in .html")
    if not page.parent.is_dir():
        raise UserError(f"--report={page}: make the folder {page.parent} first")


def to_text(answer: SearchResults) -> str:
    """Puts an answer into lines: rank, cosine, path."""
    lines = [
        f"{rank:>4}  {hit.score:.4f}  {answer.root / hit.name}"
        for rank, hit in enumerate(answer.hits, 1)
    ]
    return "\n".join(
        [
            *lines,
            f"{answer.num_photos} photos searched in "
            f"{1000 * answer.search_seconds:.0f} ms; the query's descriptor took "
            f"{answer.extract_seconds:.1f} s",
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
