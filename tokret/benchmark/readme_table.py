"""The README's table of speed, made from the JSONs of benchmarks: ratios alone."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokret.benchmark.speed_report import figures
from tokret.errors import UserError
from tokret.whole_files import write_whole

BEGIN, END = "<!-- speed: begin -->", "<!-- speed: end -->"
HEAD = (
    "| what | on | against | times as fast (lowest to highest) |",
    "| --- | --- | --- | --- |",
)
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
    rows: list[str] = []
    for result in results:
        for row in _rows(result):
            if row in rows:
                raise UserError(f"{row.split(' | ')[0][2:]!r} is there twice")
            rows.append(row)
    if not rows:
        raise UserError("no case of inference, train or extract had a rival in them")
    return [*HEAD, *rows]


def _rows(result: Mapping[str, Any]) -> Iterator[str]:
    words = [WORDS[name] for name in WORDS if name == result.get("benchmark")]
    cases = result.get("cases", ()) if words else ()
    if not isinstance(cases, list | tuple):
        raise UserError("cases must be a list")
    for number, case in enumerate(cases):
        try:
            form = case["fastest"]
            if form is None:
                continue
            ratio = [float(value) for value in case["rivals"][form]["ratio"]]
            if not all(0 < value < math.inf for value in ratio):
                raise ValueError
            cells = f"{words[0]} {case['name']}", _where(result), f"PyTorch, {form}"
            yield f"| {' | '.join(map(_cell, cells))} | {figures(ratio)} |"
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"cases[{number}] of {words[0]!r} is not what a benchmark writes"
            ) from error


def _cell(text: str) -> str:
    if not text.isprintable() or any(mark in text for mark in "|<>"):
        raise ValueError
    return text


def _where(result: Mapping[str, Any]) -> str:
    environment = result["environment"]
    if environment["device"] != "cpu":
        return str(environment["device"])
    return f"{environment['cores']} cores of {environment['processor']}"


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
    marks = re.findall(f"^{BEGIN}\r?\n(?:.*\n)*?{END}\r?$", text, re.MULTILINE)
    if len(marks) != 1:
        raise UserError(
            f"{readme} needs the lines {BEGIN} and {END} around the table, once"
        )
    line = "\r\n" if "\r\n" in marks[0] else "\n"
    new = line.join([BEGIN, *rows, END]) + ("\r" if marks[0].endswith("\r") else "")
    write_whole(readme.resolve(), text.replace(marks[0], new))
    return {"readme": str(readme), "rows": len(rows) - len(HEAD)}
