"""Lists photos of an index that are nearly the same."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from tokret.api import Index
from tokret.arguments import within
from tokret.command_line import log
from tokret.commands.query import check_page, page_thumbnail
from tokret.io.atomic_files import write_whole
from tokret.io.remote.uploading import publish
from tokret.names import counted
from tokret.option_types import RemotePath
from tokret.retrieval.html import pages
from tokret.search.duplicate_groups import duplicate_groups
from tokret.search.duplicate_threshold import CHANCE, Threshold
from tokret.search.hits import Member
from tokret.search.near_duplicates import known_threshold
from tokret.search.result_formats import groups_to_csv, groups_to_json, groups_to_text

SHOWN = 200  # groups on a page


def main(
    index: Annotated[RemotePath, tyro.conf.Positional],
    threshold: float | None = None,
    format: Literal["text", "json", "csv"] = "text",  # noqa: A002 (the option's name)
    report: RemotePath | None = None,
    root: Path | None = None,
) -> None:
    """List the photos of an index that are nearly the same, in groups.

    All pairs of photos are compared: two minutes for 100,000 photos, and a hundred
    times that for ten times as many.

    Args:
      index: the folder of the index.
      threshold: the cosine from which two photos are nearly the same. By default it is
        learned: so that different photos reach it once in about 1,000 photos.
      format: text, json or csv.
      report: also write a page with the photos, FILE.html.
      root: the folder where the index's photos are now, if they were moved.
    """
    if report is not None:
        check_page(report)
    searcher = Index(index, root).searcher()
    learned = known_threshold(searcher)
    if threshold is None:
        score = learned.score
    else:
        score = within("threshold", threshold, -1.0, 1.0)
    groups = duplicate_groups(searcher, score)
    meaning = _meaning(learned, threshold)
    number = sum(map(len, groups))
    fraction = number / max(1, searcher.num_photos)
    if format == "text":
        if groups:
            log(groups_to_text(groups, searcher.root))
        log(
            f"{counted(number, 'photo')} in {counted(len(groups), 'group')}, "
            f"{100 * fraction:.1f} % of {searcher.num_photos:,}, from a cosine of "
            f"{score:.4f}: {meaning}"
        )
    elif format == "json":
        facts = {
            "threshold": score,
            "learned": learned.score,
            "photos": searcher.num_photos,
            "near_duplicates": number,
        }
        log(groups_to_json(groups, searcher.root, facts))
    else:
        log("\n".join(groups_to_csv(groups, searcher.root)))
    if report is not None:
        page = render(groups, searcher.root, score, meaning)
        write_whole(report.resolve(), page)
        publish(report)
        log(f"written: {report}")


def _meaning(learned: Threshold, threshold: float | None) -> str:
    """What a threshold means, in words."""
    if threshold is not None:
        return f"as it was given; this index's own is {learned.score:.4f}"
    if not learned.dimension:
        return "this index has too few photos to learn another"
    return (
        f"different photos of this index are as similar about once in {CHANCE:,} photos"
    )


def render(
    groups: Sequence[Sequence[Member]], root: Path, score: float, meaning: str
) -> str:
    """Returns a page of HTML with the pictures of the first groups in it."""
    shown = [
        [(member, *page_thumbnail(root, member.name)) for member in group]
        for group in groups[:SHOWN]
    ]
    return pages.render(
        "tokret.search",
        "duplicates",
        root=root,
        score=score,
        meaning=meaning,
        total=len(groups),
        groups=shown,
    )
