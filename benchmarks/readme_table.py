"""The README's table of speed, made from the JSONs of benchmarks: ratios alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec

from benchmarks import marked_lines
from tokret.benchmark.timing import format_spread
from tokret.errors import UserError

MARK = "speed"
HEAD = (
    "| what | on | against | times as fast (lowest to highest) |",
    "| --- | --- | --- | --- |",
)
WORDS = {
    "inference": "descriptors of",
    "train": "training step,",
    "extract": "three scales,",
}

# What follows reads no more of a JSON than the table needs.
# A cell has no Markdown in it.
Cell = Annotated[
    str, msgspec.Meta(pattern=r"\A[\w .,:;()@+/%'&=#*-]+\Z", max_length=199)
]
Times = Annotated[float, msgspec.Meta(gt=0, lt=1e6)]


class _Rival(msgspec.Struct):
    ratio: tuple[Times, Times, Times]

    def __post_init__(self) -> None:
        median, lowest, highest = self.ratio
        if not lowest <= median <= highest:
            raise ValueError("a median is not between its extremes")


class _Case(msgspec.Struct):
    name: Cell
    fastest: Cell | None
    rivals: dict[str, _Rival]

    def __post_init__(self) -> None:
        if self.fastest is not None and self.fastest not in self.rivals:
            raise ValueError(f"{self.fastest!r} is not among the rivals")


class _Environment(msgspec.Struct):
    device: Cell = "cpu"
    processor: Cell = "-"
    cores: int = 0


class _Result(msgspec.Struct):
    benchmark: str
    environment: _Environment | None = None
    cases: list[_Case] = []
    results: "dict[str, _Result]" = {}

    def __post_init__(self) -> None:
        if self.cases and self.environment is None:
            raise ValueError("cases without an environment")


def read_results(path: Path) -> list[_Result]:
    """Reads the results of one benchmark, or of several that ran in a row.

    Raises:
      UserError: if the file is not such a JSON.
    """
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_Result)
    except (OSError, msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not a benchmark's JSON: {error}") from error
    return [found, *found.results.values()]


def table(results: Sequence[_Result]) -> list[str]:
    """Makes the rows, one for each case that had a rival.

    Raises:
      UserError: if there is none, or one is there twice.
    """
    rows: dict[tuple[str, str], str] = {}
    for result in results:
        environment = result.environment
        if result.benchmark not in WORDS or environment is None:
            continue
        where = environment.device
        if where == "cpu":
            where = f"{environment.cores} cores of {environment.processor}"
        for case in result.cases:
            if case.fastest is None:
                continue
            what = f"{WORDS[result.benchmark]} {case.name}"
            if (what, where) in rows:
                raise UserError(f"{what!r} on {where!r} is there twice")
            ratio = format_spread(case.rivals[case.fastest].ratio)
            rows[what, where] = (
                f"| {what} | {where} | PyTorch, {case.fastest} | {ratio} |"
            )
    if not rows:
        raise UserError("no case of inference, train or extract had a rival in them")
    return [*HEAD, *rows.values()]


def run(readme: Path, paths: Sequence[Path]) -> int:
    """Replaces the lines between a README's marks by benchmarks' JSONs: rows written.

    Raises:
      UserError: if a file cannot be read, or has not each mark on one line.
    """
    results = [result for path in paths for result in read_results(path)]
    try:
        rows = table(results)
    except UserError as error:
        raise UserError(f"{', '.join(map(str, paths))}: {error}") from error
    marked_lines.replace(readme, MARK, rows)
    return len(rows) - len(HEAD)
