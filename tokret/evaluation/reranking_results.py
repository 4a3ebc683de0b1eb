"""The same descriptors before and after re-ranking, with what that cost."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tqdm import tqdm

from tokret.evaluation.variants import variant_lines, variant_rows
from tokret.retrieval.reranking.costs import costed
from tokret.retrieval.reranking.pipeline import Step, check_rankable, run_step
from tokret.retrieval.reranking.ranking import Ranking
from tokret.retrieval.results import TableRow, table


def measure_chain(
    before: Mapping[str, Any],
    steps: Sequence[Step],
    ranking: Ranking,
    measure: Callable[[Ranking], Mapping[str, Any]],
) -> dict[str, Any]:
    """Measures a search once more, after a chain of re-rankings.

    Args:
      before: the search's own numbers.
      steps: the chain; empty for the search alone.
      ranking: what was searched.
      measure: gives a ranking's numbers.

    Returns:
      The numbers before; with steps also "reranked": "numbers" after them and "steps",
      for each its name, arguments, seconds and peak_bytes.

    Raises:
      UserError: the chain cannot be run on these descriptors.
    """
    if not steps:
        return dict(before)
    check_rankable(ranking)
    told = []
    for step in steps:
        with tqdm(
            total=len(ranking.queries), unit="query", desc=step.name, disable=None
        ) as bar:
            run = functools.partial(run_step, step, ranking, bar.update)
            ranking, cost = costed(run)
        told.append(
            {"name": step.name, "arguments": dict(step.arguments)} | cost._asdict()
        )
    after = {"numbers": dict(measure(ranking)), "steps": told}
    return {**before, "reranked": after}


def table_rows(
    benchmark: str, numbers: Mapping[str, Mapping[str, Any]]
) -> list[TableRow]:
    """Systems, each after re-ranking below itself.

    Args:
      benchmark: on what they were measured.
      numbers: by system, what `measure_chain` gave.
    """
    rows = []
    for system, found in numbers.items():
        rows.append(TableRow(system, benchmark, _flat(found)))
        if "reranked" in found:
            steps = found["reranked"]["steps"]
            name = " + ".join([system, *(step["name"] for step in steps)])
            rows.append(TableRow(name, benchmark, _flat(found["reranked"]["numbers"])))
        rows += variant_rows(system, benchmark, found)
    return rows


def report(benchmark: str, numbers: Mapping[str, Mapping[str, Any]]) -> str:
    """A table of systems, each after re-ranking below itself, and what that cost.

    Args:
      benchmark: on what they were measured.
      numbers: by system, what `measure_chain` gave.

    Returns:
      Lines, no newline at the end.
    """
    costs = [
        f"{system}, {_cost(step)}"
        for system, found in numbers.items()
        for step in found.get("reranked", {}).get("steps", [])
    ]
    for system, found in numbers.items():
        costs += variant_lines(system, found)
    return "\n".join([table(table_rows(benchmark, numbers)), *costs])


def _cost(step: Mapping[str, Any]) -> str:
    peak = step["peak_bytes"]
    memory = "" if peak is None else f", {peak / 2**20:.0f} MiB more at its peak"
    arguments = ", ".join(f"{key}={value}" for key, value in step["arguments"].items())
    return f"{step['name']} ({arguments}): {step['seconds']:.2f} s{memory}"


def _flat(numbers: Mapping[str, Any]) -> Mapping[str, Any]:
    """Leave-one-out's numbers stand under "all"."""
    return numbers.get("all", numbers)
