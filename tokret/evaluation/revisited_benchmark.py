"""Queries with lists of easy, hard and junk images: the Revisited protocol."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tokret.data.datasets import Dataset
from tokret.data.ground_truth import GroundTruth, from_revisited, keep_queries
from tokret.evaluation.image_sets import DescriptorSet, ImageSets
from tokret.evaluation.report_inputs import ShownViews, best_of
from tokret.retrieval import metrics
from tokret.retrieval.answers import Answers, Costs, by_ground_truth
from tokret.retrieval.compression.database import Compressed
from tokret.retrieval.exact_search.blocks import Database
from tokret.retrieval.exact_search.ranks import count_ranks
from tokret.retrieval.reranking.pipeline import Step
from tokret.retrieval.reranking.ranking import Ranking, place_reranked
from tokret.shapes import Int


@dataclasses.dataclass(frozen=True)
class RevisitedBenchmark:
    """A benchmark with queries; see `benchmarks.Benchmark`.

    Attributes:
      truth: of the kept queries.
      images: "query" and "database"; empty for descriptors from files.
      rows: of the kept queries among all; None if all are kept.
    """

    truth: GroundTruth
    images: ImageSets = dataclasses.field(default_factory=dict)
    rows: Sequence[int] | None = None

    @classmethod
    def of(cls, dataset: Dataset, images: ImageSets) -> "RevisitedBenchmark":
        """The benchmark of a dataset, which must have a ground truth."""
        assert dataset.ground_truth is not None
        return cls(from_revisited(dataset.ground_truth, dataset.name), images)

    def check(self, steps: Sequence[Step], distractors: bool) -> None:
        """All re-rankings and distractors suit it."""

    def queries(self, found: Mapping[str, DescriptorSet]) -> DescriptorSet:
        """The queries' descriptors."""
        return found["query"]

    def keep(self, rows: Sequence[int]) -> "RevisitedBenchmark":
        """The benchmark with only these of its queries."""
        truth = keep_queries(self.truth, rows)
        return dataclasses.replace(self, truth=truth, rows=rows)

    def ranking(self, queries: np.ndarray, database: np.ndarray) -> Ranking:
        """The kept queries and the database."""
        return Ranking(queries if self.rows is None else queries[self.rows], database)

    def ranks(
        self,
        queries: np.ndarray,
        database: Database,
        head: np.ndarray | None = None,
        compressed: Compressed | None = None,
    ) -> Int[np.ndarray, "q l"]:
        """The ranks of `metrics.labelled_items`, from 0."""
        by = queries if compressed is None else compressed.encode_queries(queries)
        labelled = metrics.labelled_items(self.truth)
        ranks = count_ranks(by, database, labelled)
        return ranks if head is None else place_reranked(ranks, labelled, head)

    def numbers(self, ranks: Int[np.ndarray, "q l"]) -> dict[str, Any]:
        """The metrics by protocol: easy, medium and hard."""
        return metrics.evaluate_ranks(ranks, self.truth).means

    def answers(
        self,
        found: Mapping[str, DescriptorSet],
        ranking: Ranking,
        ranks: Int[np.ndarray, "q l"],
        costs: Costs,
    ) -> Answers:
        """What a report shows."""
        bad = {name: each.bad for name, each in found.items()}
        return by_ground_truth(
            self.truth,
            ranks,
            queries=ShownViews(self.images["query"], bad["query"], self.rows),
            database=ShownViews(self.images["database"], bad["database"]),
            best=functools.partial(best_of, ranking),
            costs=costs,
        )
