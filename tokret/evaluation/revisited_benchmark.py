"""Queries with lists of easy, hard and junk images: the Revisited protocol."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tokret.data.datasets import Dataset
from tokret.data.ground_truth import GroundTruth, from_revisited, keep_queries
from tokret.data.views import select_views
from tokret.evaluation.image_sets import DescriptorSet, ImageSets
from tokret.evaluation.report_inputs import best_of, shown_views
from tokret.retrieval import metrics
from tokret.retrieval.answers import Answers, Costs, ProtocolRanks, Verdict
from tokret.retrieval.compression.database import Compressed
from tokret.retrieval.exact_search.blocks import Database
from tokret.retrieval.exact_search.ranks import count_ranks
from tokret.retrieval.reranking.pipeline import Step
from tokret.retrieval.reranking.ranking import Ranking, place_reranked
from tokret.shapes import Int


@dataclasses.dataclass(frozen=True)
class RevisitedBenchmark:
    """A benchmark with queries; see `benchmarks.Benchmark`."""

    truth: GroundTruth  # of the queries
    # "query" and "database"; empty for descriptors from files.
    images: ImageSets = dataclasses.field(default_factory=dict)
    # Their descriptors, once they are selected.
    found: Mapping[str, DescriptorSet] = dataclasses.field(default_factory=dict)
    rows: Sequence[int] = ()  # of the selected queries among all

    @classmethod
    def of(cls, dataset: Dataset, images: ImageSets) -> "RevisitedBenchmark":
        """The benchmark of a dataset, which must have a ground truth."""
        assert dataset.ground_truth is not None
        return cls(from_revisited(dataset.ground_truth, dataset.name), images)

    def check(self, steps: Sequence[Step], distractors: bool) -> None:
        """All re-rankings and distractors suit it."""

    def select(
        self, found: Mapping[str, DescriptorSet], skip_bad: bool
    ) -> "RevisitedBenchmark":
        """The benchmark with descriptors of its images, without bad queries."""
        rows = found["query"].good_rows(skip_bad)
        truth = keep_queries(self.truth, rows)
        return dataclasses.replace(self, truth=truth, found=found, rows=rows)

    def ranking(self) -> Ranking:
        """The selected queries and the database."""
        queries = self.found["query"].descriptors[list(self.rows)]
        return Ranking(queries, self.found["database"].descriptors)

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

    def answers(self, ranks: Int[np.ndarray, "q l"], costs: Costs) -> Answers:
        """What a report shows."""
        truth = self.truth
        average = metrics.evaluate_ranks(ranks, truth).average_precision
        lists = [metrics.split_ranks(row, truth, i) for i, row in enumerate(ranks)]
        protocols = {}
        for name, protocol in metrics.PROTOCOLS.items():
            positives = [
                metrics.without_junk(
                    np.concatenate([each[kind] for kind in protocol.positive]),
                    np.concatenate([each[kind] for kind in protocol.ignored]),
                )
                for each in lists
            ]
            protocols[name] = ProtocolRanks(average[name], positives)
        database = shown_views(self.images["database"], self.found["database"].bad)
        queries = shown_views(self.images["query"], self.found["query"].bad)
        return Answers(
            protocols=protocols,
            main="medium",
            queries=select_views(queries, self.rows),
            database=database,
            classes=[""] * len(lists),
            class_of=lambda item: "",
            positives=[
                {
                    kind: metrics.without_junk(each[kind], each["junk"])
                    for kind in ("easy", "hard")
                }
                for each in lists
            ],
            num_ranked=[len(database) - len(each["junk"]) for each in lists],
            verdict=self.verdict,
            best=functools.partial(best_of, self.ranking()),
            costs=costs,
        )

    def verdict(self, query: int, item: int) -> Verdict:
        """Whether an item is a positive of a query, by the Medium protocol."""
        if item in self.truth.junk[query]:
            return "junk"
        positive = item in self.truth.easy[query] or item in self.truth.hard[query]
        return "hit" if positive else "miss"
