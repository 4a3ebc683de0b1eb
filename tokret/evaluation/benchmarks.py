"""A system on a dataset -> its numbers: queries and ground truth, or labels alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tokret.data.datasets import Dataset
from tokret.data.streams import decoded
from tokret.data.views import View
from tokret.errors import UserError
from tokret.evaluation.systems import System
from tokret.retrieval import metrics
from tokret.retrieval.extraction import Extraction
from tokret.retrieval.ground_truth import from_revisited
from tokret.retrieval.pictures import ranking_picture
from tokret.retrieval.rankings import ranking_rows


def evaluate_on(
    dataset: Dataset,
    labelled: str,
    system: System,
    settings: Extraction,
    picture: Path | None,
) -> dict[str, Any]:
    """Measures a system on a dataset.

    Args:
      dataset: a prepared one.
      labelled: its split of labelled photos; "" where it has queries.
      system: what is measured.
      settings: how descriptors are made.
      picture: where rankings of queries are drawn; None for nowhere.

    Returns:
      By level, the numbers as fractions.

    Raises:
      UserError: if nothing could be found, or a photo cannot be read.
    """
    if labelled:
        return evaluate_labelled(dataset, labelled, system, settings)
    return evaluate_benchmark(dataset, system, settings, picture)


def view_of(record: Mapping[str, Any], longest_side: int, box: Any = None) -> View:
    """Makes a view of a dataset's record."""
    name = record["filename"].decode()
    return View(
        record["image"], name, None if box is None else tuple(box), longest_side
    )


def evaluate_benchmark(
    dataset: Dataset, system: System, settings: Extraction, picture: Path | None
) -> dict[str, Any]:
    """Measures a system on a dataset's queries, database and ground truth."""
    assert dataset.ground_truth is not None
    truth = from_revisited(dataset.ground_truth, dataset.name)
    boxes = [None] * len(truth.queries) if truth.boxes is None else truth.boxes
    queries, database = dataset.records("query"), dataset.records("database")
    side = settings.longest_side
    asked = [view_of(queries[i], side, box) for i, box in enumerate(boxes)]
    stored = [view_of(record, side) for record in database]
    described = system([*asked, *stored])
    q, db = described[: len(asked)], described[len(asked) :]
    found = metrics.evaluate(q, db, truth)
    if picture is not None:
        rows = ranking_rows(
            (q, db),
            truth,
            found.average_precision["medium"],
            lambda i: decoded(queries[i]),
            lambda i: decoded(database[i]),
        )
        ranking_picture(rows, picture)
    return dict(found.levels)


def evaluate_labelled(
    dataset: Dataset, split: str, system: System, settings: Extraction
) -> dict[str, Any]:
    """Measures a system on labelled photos, each of which asks all the others."""
    records, side = dataset.records(split), settings.longest_side
    told = dataset.leave_one_out if split == "benchmark" else None
    labels = told["labels"] if told else [record["label"] for record in records]
    boxes = told["boxes"] if told else [None] * len(labels)
    if len(set(labels)) == len(labels):
        raise UserError(
            f"no class of {dataset.builder.builder_config.description} has two photos: "
            "none could be found by another"
        )
    cropped = [i for i, box in enumerate(boxes) if box is not None]
    asked = [view_of(records[i], side, boxes[i]) for i in cropped]
    described = system([*asked, *(view_of(record, side) for record in records)])
    database = described[len(asked) :]
    queries = np.array(database)
    queries[cropped] = described[: len(asked)]
    found = metrics.leave_one_out(database, np.array(labels), queries=queries)
    return {"all": found}
