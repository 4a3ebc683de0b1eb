"""Descriptors on a benchmark -> its numbers, for both kinds of ground truth.

A database photo without a descriptor is ranked last; a query without one is an error,
or is skipped.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from tokret.evaluation.image_sets import DescriptorSet
from tokret.evaluation.report_inputs import costs_of
from tokret.evaluation.variants import Variants
from tokret.retrieval.answers import Answers, Costs
from tokret.retrieval.compression.database import Compressed
from tokret.retrieval.exact_search.blocks import Database
from tokret.retrieval.reranking.costs import measure_cost
from tokret.retrieval.reranking.pipeline import Step, check_rankable, run_step
from tokret.retrieval.reranking.ranking import Ranking
from tokret.runtime.progress import progress_bar


@runtime_checkable
class Benchmark(Protocol):
    """The ground truth of the images of a "database" and, for some, a "query" set."""

    def check(self, steps: Sequence[Step], distractors: bool) -> None:
        """Raises a UserError for re-rankings or distractors that do not suit it."""

    def select(self, found: Mapping[str, DescriptorSet], skip_bad: bool) -> "Benchmark":
        """The benchmark with descriptors by set, without bad queries."""

    @property
    def found(self) -> Mapping[str, DescriptorSet]:
        """The selected descriptors of the "query" and "database" images."""

    def ranking(self) -> Ranking:
        """The selected queries and the database."""

    def ranks(
        self,
        queries: np.ndarray,
        database: Database,
        head: np.ndarray | None = None,
        compressed: Compressed | None = None,
    ) -> Any:
        """The ranks that the numbers need.

        `queries` may be expanded, the database has distractors behind it or is the
        codes of `compressed`; `head` has each query's first items in the order of a re-
        ranking.
        """

    def numbers(self, ranks: Any) -> dict[str, Any]:
        """The metrics of `ranks`, as fractions, by protocol."""

    def answers(self, ranks: Any, costs: Costs) -> Answers:
        """What a report shows of `ranks`."""


def evaluate(
    benchmark: Benchmark,
    found: Mapping[str, DescriptorSet],
    *,
    steps: Sequence[Step] = (),
    variants: Variants = Variants(),  # noqa: B008 (frozen)
    skip_bad: bool = False,
    report: Callable[[Answers], Any] | None = None,
) -> dict[str, Any]:
    """Measures descriptors on a benchmark.

    Args:
      benchmark: the ground truth.
      found: descriptors of its images, by set.
      steps: re-rankings, after which is measured too.
      variants: of the search, which are measured too.
      skip_bad: whether queries without a descriptor are skipped.
      report: called with the answers before any re-ranking.

    Returns:
      The numbers, by protocol; "bad" counts images without a descriptor, if there are
      any; the rest is of `measure_reranking` and `Variants.measure`.

    Raises:
      UserError: if a query has no descriptor, or the re-ranking cannot be run.
    """
    found = {
        name: dataclasses.replace(each, descriptors=variants.whiten(each.descriptors))
        for name, each in found.items()
    }
    benchmark = benchmark.select(found, skip_bad)
    ranking = benchmark.ranking()
    start = time.perf_counter()
    ranks = benchmark.ranks(np.asarray(ranking.queries), ranking.database)
    costs = costs_of(found, time.perf_counter() - start)
    if report is not None:
        report(benchmark.answers(ranks, costs))

    def measure(*search: Any) -> dict[str, Any]:
        return benchmark.numbers(benchmark.ranks(*search))

    numbers = benchmark.numbers(ranks)
    numbers |= measure_reranking(steps, ranking, measure)
    numbers |= variants.measure(np.asarray(ranking.queries), ranking.database, measure)
    bad = {
        "database": len(found["database"].bad),
        "queries": len(benchmark.found["query"].bad),
    }
    return numbers | ({"bad": bad} if any(bad.values()) else {})


def measure_reranking(
    steps: Sequence[Step],
    ranking: Ranking,
    measure: Callable[..., Mapping[str, Any]],
) -> dict[str, Any]:
    """Measures a search again after re-rankings.

    Returns:
      Without steps nothing; else "reranked": "numbers" after them and "steps", for each
      its name, arguments, seconds and peak_bytes.

    Raises:
      UserError: a step cannot be run on these descriptors.
    """
    if not steps:
        return {}
    check_rankable(ranking)
    costs = []
    for step in steps:
        count = len(ranking.queries)
        with progress_bar(total=count, unit="query", desc=step.name) as bar:
            run = functools.partial(run_step, step, ranking, bar.update)
            ranking, cost = measure_cost(run)
        arguments = dict(step.arguments)
        costs.append({"name": step.name, "arguments": arguments} | cost._asdict())
    numbers = dict(measure(ranking.queries, ranking.database, ranking.reranked))
    return {"reranked": {"numbers": numbers, "steps": costs}}
