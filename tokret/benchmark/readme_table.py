"""The README's table of speed, made from the JSONs of benchmarks: ratios alone."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokret.benchmark.speed_report import figures
from tokret.errors import UserError
from tokret.io.atomic_files import write_whole

BEGIN, END = "<!-- speed: begin -->", "<!-- speed: end -->"
HEAD = (
    "| what | on | against | times as fast (lowest to highest) |",
    "| --- | --- | --- | --- |",
)
MARKUP = "|<>[]`\\"
WIDEST = 200  # characters of a cell
MOST = 1e6  # times as fast
WORDS = {
    "inference": "descriptors of",
    "train": "training step,",
    "extract": "three scales,",
}


def read_results(path: Path) -> list[Mapping[str, Any]]:
    """Reads the results of one benchmark, or of several that ran in a row.

    Raises:
      UserError: if the file is not such a JSON.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as a benchmark's: {error}") from error
    if not isinstance(found, dict) or "benchmark" not in found:
        raise UserError(f"{path} is not what a benchmark wrote with --json")
    results = found.get("results", {"": found})
    if not isinstance(results, dict):
        raise UserError(f"{path}: results must be an object")
    for name, result in results.items():
        if not isinstance(result, dict):
            raise UserError(f"{path}: results.{name} must be an object")
    return list(results.values())


def table(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Makes the rows, one for each case that had a rival.

    Raises:
      UserError: if there is none, if one is there twice, or one is not what a benchmark
        writes.
    """
    rows: dict[tuple[str, str], str] = {}
    for result in results:
        for what, where, row in _rows(result):
            if (what, where) in rows:
                raise UserError(f"{what!r} on {where!r} is there twice")
            rows[what, where] = row
    if not rows:
        raise UserError("no case of inference, train or extract had a rival in them")
    return [*HEAD, *rows.values()]


def _rows(result: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yields each case, its machine, and their row."""
    words = [WORDS[name] for name in WORDS if name == result.get("benchmark")]
    cases = result.get("cases", ()) if words else ()
    if not isinstance(cases, list | tuple):
        raise UserError("cases must be a list")
    for number, case in enumerate(cases):
        try:
            form = case["fastest"]
            if form is None:
                continue
            ratio = case["rivals"][form]["ratio"]
            if not all(type(value) in (int, float) and value < MOST for value in ratio):
                raise TypeError
            median, lowest, highest = ratio
            if not 0 < lowest <= median <= highest:
                raise ValueError
            cells = case["name"], _where(result), form
            name, where, form = map(_cell, cells)
            what = f"{words[0]} {name}"
            line = what, where, f"PyTorch, {form}", figures(ratio)
            yield what, where, f"| {' | '.join(line)} |"
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"cases[{number}] of {words[0]!r} is not what a benchmark writes"
            ) from error


def _cell(text: Any) -> str:
    if not isinstance(text, str) or not text.isprintable():
        raise TypeError
    if not 0 < len(text) < WIDEST or any(mark in text for mark in MARKUP):
        raise ValueError
    return text


def _where(result: Mapping[str, Any]) -> str:
    environment = result["environment"]
    if environment["device"] != "cpu":
        return _cell(environment["device"])
    return f"{int(environment['cores'])} cores of {environment['processor']}"


def run(readme: Path, paths: Sequence[Path]) -> dict[str, Any]:
    """Replaces what stands between the README's marks.

    Args:
      readme: a Markdown file with BEGIN and END, each on a line of its own.
      paths: JSONs that benchmarks wrote.

    Returns:
      The file and the number of rows.

    Raises:
      UserError: if a file cannot be read, or the marks are not there once.
    """
    results = [result for path in paths for result in read_results(path)]
    try:
        rows = table(results)
    except UserError as error:
        raise UserError(f"{', '.join(map(str, paths))}: {error}") from error
    try:
        text = readme.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{readme} cannot be read: {error}") from error
    begins, ends = (
        list(re.finditer(f"^{mark}\r?$", text, re.MULTILINE)) for mark in (BEGIN, END)
    )
    if len(begins) != 1 or len(ends) != 1 or begins[0].end() > ends[0].start():
        raise UserError(
            f"{readme} needs the lines {BEGIN} and {END} around the table, once"
        )
    line = "\r\n" if begins[0][0].endswith("\r") else "\n"
    new = line.join([BEGIN, *rows, ""])
    write_whole(
        readme.resolve(), text[: begins[0].start()] + new + text[ends[0].start() :]
    )
    return {"readme": str(readme), "rows": len(rows) - len(HEAD)}
