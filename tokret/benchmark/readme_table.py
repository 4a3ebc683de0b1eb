"""The README's table of speed, made from the JSONs of benchmarks: ratios alone."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokret.benchmark.speed_report import figures
from tokret.errors import UserError

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
        found = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as a benchmark's: {error}") from error
    if not isinstance(found, dict) or "benchmark" not in found:
        raise UserError(f"{path} is not what a benchmark wrote with --json")
    return list(found["results"].values()) if "results" in found else [found]


def table(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Makes the rows, one for each case that had a rival."""
    rows = []
    for result in results:
        for case in result.get("cases", ()):
            form = case.get("fastest")
            if form is None or result["benchmark"] not in WORDS:
                continue
            ratio = figures(case["rivals"][form]["ratio"])
            rows.append(
                f"| {WORDS[result['benchmark']]} {case['name']} | {_where(result)} | "
                f"PyTorch, {form} | {ratio} |"
            )
    return [*HEAD, *rows]


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
      UserError: if a file cannot be read, or the marks are not there.
    """
    rows = table([result for path in paths for result in read_results(path)])
    text = readme.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"{readme} needs the lines {BEGIN} and {END} around the table")
    partial = readme.with_name(readme.name + ".partial")
    partial.write_text("\n".join([before + begin, *rows, END]) + after)
    os.replace(partial, readme)
    return {"readme": str(readme), "rows": len(rows) - len(HEAD)}
