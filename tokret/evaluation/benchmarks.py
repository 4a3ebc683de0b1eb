"""A system on a dataset -> its numbers: queries and ground truth, or labels alone.

A database photo that cannot be described is ranked last; a query that cannot be is an
error, or is left out where that was asked for.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tokret.data.datasets import Dataset
from tokret.data.ground_truth import from_revisited, keep_queries
from tokret.data.records import BadRecordError, Records, RecordViews, read_record
from tokret.data.views import Box
from tokret.errors import UserError
from tokret.evaluation.protocols import levels_among, levels_of
from tokret.evaluation.report_inputs import ShownViews, best_among, costs_of
from tokret.evaluation.reranking_results import measure_chain
from tokret.evaluation.systems import Described, System
from tokret.evaluation.variants import Variants
from tokret.retrieval import leave_one_out as among_labels
from tokret.retrieval import metrics, search
from tokret.retrieval.answers import Answers, by_ground_truth, by_labels
from tokret.retrieval.blocks import Database
from tokret.retrieval.compression.database import Compressed
from tokret.retrieval.reranking.pipeline import Step, check_among_labels
from tokret.retrieval.reranking.ranking import Ranking

# Takes what a report is made from; None where none is wanted.
Tell = Callable[[Answers], Any] | None


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Photos and what should be found among them.

    Attributes:
      dataset: a prepared one.
      labelled: its split of labelled photos; "" where it has queries.
      longest_side: of a photo after shrinking, in pixels.
      skip_bad: whether queries that cannot be described are left out.
      rerank: a chain of re-rankings, which is measured too.
      variants: of the benchmark, which are measured too.
    """

    dataset: Dataset
    labelled: str
    longest_side: int
    skip_bad: bool
    rerank: Sequence[Step] = ()
    variants: Variants = Variants()

    def parts(self) -> dict[str, RecordViews]:
        """The photos to describe: the queries and the database, or every split."""
        if self.labelled:
            cropped = [i for i, box in enumerate(self._told_boxes()) if box is not None]
            boxes = [self._told_boxes()[i] for i in cropped]
            database = {"database": self._views(self.labelled)}
            if not cropped:
                return database
            return {"query": self._views(self.labelled, cropped, boxes), **database}
        truth = self.dataset.ground_truth
        if truth is None:
            return {
                split: self._views(split) for split in self.dataset.builder.info.splits
            }
        revisited = from_revisited(truth, self.dataset.name)
        boxes = [None] * len(revisited.queries)
        if revisited.boxes is not None:
            boxes = [_box(box) for box in revisited.boxes.tolist()]
        places = range(len(boxes))
        return {
            "query": self._views("query", places, boxes),
            "database": self._views("database"),
        }

    def evaluate(
        self,
        system: System,
        tell: Tell,
        tell_bad: Callable[[Mapping[str, Described]], None],
    ) -> dict[str, Any]:
        """Measures a system.

        Args:
          system: what is measured.
          tell: told the answers before any re-ranking, to report on them.
          tell_bad: told what was described, to name what could not be.

        Returns:
          By level, the numbers as fractions; `bad` counts photos that could not be
          described, if there are any; the rest is what `measure_chain` and
          `Variants.measure` add.

        Raises:
          UserError: if nothing could be found, a query cannot be described, or the
            re-ranking does not suit the dataset.
        """
        if self.labelled:
            check_among_labels(self.rerank)
            if self.variants.distractors is not None:
                raise UserError(
                    "--distractors goes with a benchmark that has queries: photos that "
                    "ask one another would take them for answers"
                )
            labels = self._labels()
            found = self.variants.whiten_parts(system(self.parts()))
            tell_bad(found)
            return self._evaluate_labelled(found, labels, tell)
        found = self.variants.whiten_parts(system(self.parts()))
        tell_bad(found)
        return self._evaluate_revisited(found, tell)

    def _views(
        self,
        split: str,
        places: Sequence[int] | None = None,
        boxes: Sequence[Box | None] | None = None,
    ) -> RecordViews:
        records = self.dataset.records(split)
        return RecordViews(records, self.longest_side, places, boxes)

    def _told_boxes(self) -> list[Box | None]:
        told = self.dataset.leave_one_out if self.labelled == "benchmark" else None
        return [None if b is None else _box(b) for b in told["boxes"]] if told else []

    def _evaluate_revisited(
        self, found: Mapping[str, Described], tell: Tell
    ) -> dict[str, Any]:
        assert self.dataset.ground_truth is not None
        truth = from_revisited(self.dataset.ground_truth, self.dataset.name)
        queries, database = found["query"], found["database"]
        kept = good_queries(queries, self.skip_bad)
        asked, truth = queries.descriptors[kept], keep_queries(truth, kept)
        start = time.perf_counter()
        labelled = metrics.labelled_items(truth)
        ranks = search.count_ranks(asked, database.descriptors, labelled)
        seconds = time.perf_counter() - start
        numbers = metrics.evaluate_ranks(ranks, truth)
        if tell is not None:
            parts = self.parts()
            answers = by_ground_truth(
                truth,
                ranks,
                numbers,
                queries=ShownViews(parts["query"], queries.bad, kept),
                database=ShownViews(parts["database"], database.bad),
                best=functools.partial(best_among, asked, database.descriptors),
                costs=costs_of(found, seconds),
            )
            tell(answers)
        ranking = Ranking(asked, database.descriptors)
        measure = functools.partial(levels_of, truth=truth)
        told = measure_chain(numbers.levels, self.rerank, ranking, measure)
        search_of = functools.partial(levels_among, truth)
        told |= self.variants.measure(asked, database.descriptors, search_of)
        return told | bad_counts(database, queries)

    def _labels(self) -> list[int]:
        told = self.dataset.leave_one_out if self.labelled == "benchmark" else None
        records = self.dataset.records(self.labelled)
        labels = told["labels"] if told else _labels(records)
        if len(set(labels)) == len(labels):
            raise UserError(
                f"no class of {self.dataset.builder.builder_config.description} has "
                "two photos: none could be found by another"
            )
        return list(labels)

    def _class_names(self) -> Sequence[str]:
        told = self.dataset.leave_one_out if self.labelled == "benchmark" else None
        return told["classes"] if told else self.dataset.class_names

    def _evaluate_labelled(
        self, found: Mapping[str, Described], labels: list[int], tell: Tell
    ) -> dict[str, Any]:
        database = found["database"]
        asking = np.array(database.descriptors)
        bad = dict(database.bad)
        cropped = [i for i, box in enumerate(self._told_boxes()) if box is not None]
        if cropped:
            asking[cropped] = found["query"].descriptors
            of_boxes = found["query"].bad
            bad |= {cropped[row]: why for row, why in of_boxes.items()}
        queries = Described(database.names, asking, bad)
        kept = good_queries(queries, self.skip_bad)
        own = np.arange(len(asking), dtype=np.int32)
        ranking = Ranking(asking, database.descriptors, own)

        def ranks_of(ranking: Ranking) -> dict[int, np.ndarray]:
            by, among, head = ranking.queries, ranking.database, ranking.head
            return among_labels.leave_one_out_ranks(
                among, np.array(labels), queries=by, asking=kept, head=head
            )

        def measure(ranking: Ranking) -> dict[str, Any]:
            return {"all": among_labels.leave_one_out_numbers(ranks_of(ranking))}

        start = time.perf_counter()
        ranks = ranks_of(ranking)
        seconds = time.perf_counter() - start
        if tell is not None:
            tell(self._answers_of_labels(found, labels, ranking, ranks, seconds))
        before = {"all": among_labels.leave_one_out_numbers(ranks)}
        told = measure_chain(before, self.rerank, ranking, measure)

        def search_of(
            by: np.ndarray, among: Database, few: Compressed | None
        ) -> dict[str, Any]:
            ask = None if few is None else few.ask
            numbers = among_labels.leave_one_out(
                among, np.array(labels), queries=by, asking=kept, ask=ask
            )
            return {"all": numbers}

        told |= self.variants.measure(asking, database.descriptors, search_of)
        return told | bad_counts(database, queries)

    def _answers_of_labels(
        self,
        found: Mapping[str, Described],
        labels: list[int],
        ranking: Ranking,
        ranks: Mapping[int, np.ndarray],
        seconds: float,
    ) -> Answers:
        parts, classes = self.parts(), self._class_names()
        boxes = enumerate(self._told_boxes())
        cropped = [item for item, box in boxes if box is not None]
        asked = {
            item: parts["query"][row]
            for row, item in enumerate(cropped)
            if item in ranks
        }
        return by_labels(
            np.array(labels),
            ranks,
            names=lambda label: str(classes[int(label)]),
            best=functools.partial(best_among, ranking.queries, ranking.database),
            database=ShownViews(parts["database"], found["database"].bad),
            query_views=asked,
            costs=costs_of(found, seconds),
        )


def _labels(records: Records) -> list[int]:
    try:
        return [
            int(read_record(records, place)["label"]) for place in range(len(records))
        ]
    except BadRecordError as error:
        raise UserError(f"{error}; its label is lost, prepare it again") from error


def good_queries(queries: Described, skip_bad: bool) -> list[int]:
    """Lists the queries that can ask.

    Args:
      queries: all of them.
      skip_bad: whether the others are left out.

    Raises:
      UserError: a query is bad and is not to be left out; or all are.
    """
    bad = queries.bad
    if bad and not skip_bad:
        first = min(bad)
        raise UserError(
            f"{len(bad)} of {len(queries.names)} queries cannot be described, the "
            f"first is {queries.names[first]} ({bad[first]}); mend the photos, or "
            "leave such queries out: --skip_bad"
        )
    kept = [row for row in range(len(queries.names)) if row not in bad]
    if not kept:
        raise UserError(f"no query can be described; of the first: {bad[min(bad)]}")
    return kept


def bad_counts(database: Described, queries: Described) -> dict[str, Any]:
    """Counts photos that could not be described, for results; {} if all could be."""
    counts = {"database": len(database.bad), "queries": len(queries.bad)}
    return {"bad": counts} if any(counts.values()) else {}


def bad_words(described: Described, shown: int = 5) -> list[str]:
    """Says which photos could not be described, in lines; the first few by name."""
    lines = [
        f"  {described.names[row]}: {why}"
        for row, why in sorted(described.bad.items())[:shown]
    ]
    if len(described.bad) > shown:
        lines.append(f"  and {len(described.bad) - shown} more")
    return lines


def _box(sides: Sequence[float]) -> Box:
    x0, y0, x1, y1 = (float(side) for side in sides)
    return x0, y0, x1, y1
