"""Labelled photos, each of which is a query to all the others."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tokret.data.datasets import Dataset
from tokret.data.records import BadRecordError, read_record
from tokret.errors import UserError
from tokret.evaluation.image_sets import (
    DescriptorSet,
    ImageSets,
    leave_one_out_boxes,
)
from tokret.evaluation.report_inputs import best_of, shown_views
from tokret.retrieval import leave_one_out
from tokret.retrieval.answers import Answers, Costs, ProtocolRanks, Verdict
from tokret.retrieval.compression.database import Compressed
from tokret.retrieval.exact_search.blocks import Database
from tokret.retrieval.reranking.pipeline import Step, check_leave_one_out
from tokret.retrieval.reranking.ranking import Ranking
from tokret.shapes import Float, Int

Ranks = Mapping[int, Int[np.ndarray, " _"]]


@dataclasses.dataclass(frozen=True)
class LeaveOneOutBenchmark:
    """A benchmark of labelled photos; see `benchmarks.Benchmark`."""

    labels: Sequence[int]  # of the photos
    class_names: Sequence[str]  # by label
    images: ImageSets  # "database", and as "query" the photos that have a box
    boxed: Sequence[int]  # their rows in the database
    # Descriptors of the "query" and "database", once they are selected.
    found: Mapping[str, DescriptorSet] = dataclasses.field(default_factory=dict)
    rows: Sequence[int] = ()  # of the selected queries

    @classmethod
    def of(
        cls, dataset: Dataset, split: str, images: ImageSets
    ) -> "LeaveOneOutBenchmark":
        """The benchmark of a dataset's split.

        Raises:
          UserError: if no class has two photos, all are of one class, or a label cannot
            be read.
        """
        truth = dataset.leave_one_out if split == "benchmark" else None
        labels = list(truth["labels"]) if truth else _read_labels(dataset, split)
        source = dataset.builder.builder_config.description
        if len(set(labels)) == 1:
            argument = "" if truth else "image_folder: "
            raise UserError(
                f"{argument}all photos of {source} are of one class, every photo is "
                "relevant, so this measures nothing; name a folder with one folder per "
                "class"
            )
        if len(set(labels)) == len(labels):
            raise UserError(
                f"no class of {source} has two photos: no query would have a positive"
            )
        names = truth["classes"] if truth else dataset.class_names
        return cls(labels, names, images, list(leave_one_out_boxes(dataset, split)))

    def check(self, steps: Sequence[Step], distractors: bool) -> None:
        """Refuses what would take queries for positives of others.

        Raises:
          UserError: for distractors, or a re-ranking that changes the database.
        """
        check_leave_one_out(steps)
        if distractors:
            raise UserError(
                "distractors: they need a benchmark with queries of its own; labelled "
                "photos that are queries to one another would take them for positives"
            )

    def select(
        self, found: Mapping[str, DescriptorSet], skip_bad: bool
    ) -> "LeaveOneOutBenchmark":
        """The benchmark with descriptors; queries with a box have those of the box."""
        database = found["database"]
        descriptors, bad = database.descriptors, dict(database.bad)
        if self.boxed:
            descriptors = np.array(descriptors)
            descriptors[self.boxed] = found["query"].descriptors
            bad |= {self.boxed[row]: why for row, why in found["query"].bad.items()}
        queries = DescriptorSet(database.names, descriptors, bad)
        rows = queries.good_rows(skip_bad)
        found = {"query": queries, "database": database}
        return dataclasses.replace(self, found=found, rows=rows)

    def ranking(self) -> Ranking:
        """All photos as queries: `ranks` skips those that are bad."""
        database = self.found["database"].descriptors
        own = np.arange(len(database), dtype=np.int32)
        return Ranking(self.found["query"].descriptors, database, own)

    def ranks(
        self,
        queries: np.ndarray,
        database: Database,
        head: np.ndarray | None = None,
        compressed: Compressed | None = None,
    ) -> Ranks:
        """By query, the ranks of the other photos of its class, from 0."""
        return leave_one_out.leave_one_out_ranks(
            database,
            np.array(self.labels),
            queries=queries,
            query_items=self.rows,
            reranked=head,
            encode_queries=None if compressed is None else compressed.encode_queries,
        )

    def numbers(self, ranks: Ranks) -> dict[str, Any]:
        """The metrics, under "all"."""
        return {"all": leave_one_out.leave_one_out_metrics(ranks)}

    def answers(self, ranks: Ranks, costs: Costs) -> Answers:
        """What a report shows."""
        items = sorted(ranks)
        mine = [ranks[item] for item in items]
        average = [leave_one_out.plain_average_precision(rank) for rank in mine]
        database = shown_views(self.images["database"], self.found["database"].bad)
        boxed = {item: row for row, item in enumerate(self.boxed)}
        classes = [str(self.class_names[label]) for label in self.labels]

        def verdict(query: int, item: int) -> Verdict:
            same = self.labels[item] == self.labels[items[query]]
            return "hit" if same else "miss"

        return Answers(
            protocols={"all": ProtocolRanks(np.array(average), mine)},
            main="all",
            queries=[
                self.images["query"][boxed[i]] if i in boxed else database[i]
                for i in items
            ],
            database=database,
            classes=[classes[item] for item in items],
            class_of=classes.__getitem__,
            positives=[{"": rank} for rank in mine],
            num_ranked=[len(database) - 1] * len(mine),
            verdict=verdict,
            best=functools.partial(_best_others, self.ranking(), np.array(items)),
            costs=costs,
        )


def _best_others(
    ranking: Ranking, items: Int[np.ndarray, " n"], queries: Sequence[int], count: int
) -> tuple[Float[np.ndarray, "q k"], Int[np.ndarray, "q k"]]:
    """The best items of some queries, without the queries, which are items too."""
    own = items[np.array(queries)]
    count = min(count, len(ranking.database) - 1)
    scores, found = best_of(ranking, own.tolist(), count + 1)
    kept = found != own[:, None]
    # A query may be further behind, among equals: then the last item is removed.
    kept[kept.all(axis=1), -1] = False
    shape = (len(own), count)
    return scores[kept].reshape(shape), found[kept].reshape(shape)


def _read_labels(dataset: Dataset, split: str) -> list[int]:
    records = dataset.records(split)
    try:
        return [int(read_record(records, row)["label"]) for row in range(len(records))]
    except BadRecordError as error:
        raise UserError(f"{error}; its label is lost, prepare it again") from error
