"""The table of a service's speed and memory, made from the JSON of its benchmark."""

from pathlib import Path
from typing import Annotated

import msgspec

from benchmarks import marked_lines
from tokret.benchmark.timing import format_spread
from tokret.errors import UserError

MARK = "serve"
FACTOR, AT_LEAST, TIMES_AT_ONCE = 1.3, 10, 2  # the targets
START, EXTRA = 10, 1e9  # seconds; bytes beside the descriptors

Word = Annotated[str, msgspec.Meta(pattern=r"\A[\w .,:;()@+/%'&=#*-]+\Z")]
Spread = tuple[float, float, float]


class _Environment(msgspec.Struct):
    processor: Word
    cores: int
    commit: Word | None
    versions: dict[Word, Word]


class _One(msgspec.Struct):
    seconds: dict[Word, Spread]
    ratio: Spread
    faster_than_a_process: float


class _AtOnce(msgspec.Struct):
    per_second: dict[Word, Spread]
    ratio: Spread
    p99: dict[Word, float]
    queries: int
    lost: int


class _Served(msgspec.Struct):
    start_seconds: float
    proportional_bytes: float
    anonymous_bytes: float


class _Result(msgspec.Struct):
    environment: _Environment
    photos: int
    dims: int
    clients: int
    turns: int
    one: _One
    at_once: _AtOnce
    many: int
    served: dict[Word, _Served]
    adding: dict[Word, dict[Word, float]]


def table(result: _Result) -> list[str]:
    """Makes the lines."""
    where, one, at_once = result.environment, result.one, result.at_once
    versions = ", ".join(f"{name} {number}" for name, number in where.versions.items())
    commit = (where.commit or "-")[:7]
    rows = [
        f"{where.cores} cores of {where.processor}, commit `{commit}`, "
        f"{versions}; EfficientNet-Lite0 with Token in float32 at 224 px, "
        f"{result.dims:,} dimensions, exact search, {result.turns} turns (lowest to "
        "highest):",
        "",
        "| what | target | measured |",
        "| --- | --- | --- |",
        f"| a query over HTTP among {result.photos:,} photos, as many times one "
        f"extraction and one search in one process | at most {FACTOR} | "
        f"{format_spread(one.ratio)} |",
        f"| the same, a process of `tokret query` as many times that | at least "
        f"{AT_LEAST} | {one.faster_than_a_process:.0f} |",
        f"| {result.clients} clients at once, queries/s as many times one client's | "
        f"at least {TIMES_AT_ONCE} | {format_spread(at_once.ratio)}; p99 "
        f"{at_once.p99['all']:.2f} s, {at_once.lost} of {2 * at_once.queries} lost |",
    ]
    for precision, size in (("float32", 4), ("int8", 1)):
        found, most = result.served[precision], result.many * result.dims * size
        rows.append(
            f"| memory of {result.many:,} photos, {precision}, PSS (anonymous) | "
            f"{most / 1e9:.2f} + {EXTRA / 1e9:.0f} GB | "
            f"{found.proportional_bytes / 1e9:.2f} "
            f"({found.anonymous_bytes / 1e9:.2f}) GB |"
        )
    starts = [found.start_seconds for found in result.served.values()]
    rows.append(
        f"| start with {result.many:,} photos | at most {START} s | "
        f"{min(starts):.1f} to {max(starts):.1f} s |"
    )
    for kind, taken in result.adding.items():
        rows.append(
            f"| adding 1,000 photos to {result.many:,}, with {kind} | as to 1,000 | "
            f"{taken['many']:.1f} s; {taken['few']:.1f} s to 1,000 |"
        )
    return rows


def run(page: Path, path: Path) -> int:
    """Replaces the lines between a page's marks by a benchmark's JSON: lines written.

    Raises:
      UserError: if a file cannot be read, or has not each mark on one line.
    """
    try:
        result = msgspec.json.decode(path.read_bytes(), type=_Result)
    except (OSError, msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not a JSON of serve with many: {error}") from error
    lines = table(result)
    marked_lines.replace(page, MARK, lines)
    return len(lines)
