"""Results of queries as text, JSON and CSV."""

import csv
import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tokret.names import counted, first_names, printable
from tokret.search.hits import Member, shown_score
from tokret.search.queries import SearchResults

COLUMNS = ("query", "rank", "score", "path", "id", "label", "near_duplicates")


def to_text(results: SearchResults) -> str:
    """Results as lines: rank, cosine, path."""
    if results.error:
        return printable(results.error)
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


def to_json(several: Iterable[SearchResults]) -> str:
    """Results of queries as one JSON document."""
    text = msgspec.json.encode([_fields(results) for results in several])
    return msgspec.json.format(text).decode()


def _fields(results: SearchResults) -> dict[str, Any]:
    gone = {*results.gone}
    return {
        "query": results.query,
        "error": results.error,
        "photos": results.num_photos,
        "hits": [
            {
                "rank": rank,
                "score": shown_score(hit.score),
                "path": os.path.join(results.root, hit.name),
                "name": hit.name,
                "id": hit.id,
                "label": hit.label,
                "near_duplicates": hit.near_duplicates,
                "missing": hit.name in gone,
            }
            for rank, hit in enumerate(results.hits, 1)
        ],
        "seconds": {
            "extract": results.extract_seconds,
            "search": results.search_seconds,
        },
    }


def to_csv(several: Iterable[SearchResults]) -> Iterator[str]:
    """Yields the lines of a table with a heading: a row for each hit."""
    yield _row(COLUMNS)
    for results in several:
        for rank, hit in enumerate(results.hits, 1):
            path = os.path.join(results.root, hit.name)
            near, score = hit.near_duplicates, shown_score(hit.score)
            yield _row((results.query, rank, score, path, hit.id, hit.label, near))


def groups_to_text(groups: Sequence[Sequence[Member]], root: Path) -> str:
    """Groups of near-duplicates as lines: number of the group, cosine, path."""
    return "\n".join(
        f"{number:>4}  {member.score:.4f}  {printable(str(root / member.name))}"
        for number, group in enumerate(groups, 1)
        for member in group
    )


def groups_to_json(
    groups: Sequence[Sequence[Member]], root: Path, facts: Mapping[str, Any]
) -> str:
    """Groups of near-duplicates as one JSON document, with facts beside them."""
    photos = [
        [
            {
                **member._asdict(),
                "score": shown_score(member.score),
                "path": os.path.join(root, member.name),
            }
            for member in group
        ]
        for group in groups
    ]
    text = msgspec.json.encode({**facts, "groups": photos})
    return msgspec.json.format(text).decode()


def groups_to_csv(groups: Sequence[Sequence[Member]], root: Path) -> Iterator[str]:
    """Yields the lines of a table with a heading: a row for each photo."""
    yield _row(("group", "score", "path", "id", "label"))
    for number, group in enumerate(groups, 1):
        for name, photo_id, label, score in group:
            path = os.path.join(root, name)
            yield _row((number, shown_score(score), path, photo_id, label))


def _row(values: Iterable[Any]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(values)
    return line.getvalue()
