"""The images of an evaluation, in named sets, and their descriptors."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tokret.data.datasets import Dataset
from tokret.data.ground_truth import from_revisited
from tokret.data.records import RecordViews
from tokret.data.views import Box, View
from tokret.errors import UserError
from tokret.shapes import Float

ImageSets = Mapping[str, Sequence[View]]  # by name, such as query and database


@dataclasses.dataclass(frozen=True)
class DescriptorSet:
    """The descriptors of a set of images."""

    names: tuple[str, ...]  # of the images
    descriptors: Float[np.ndarray, "n d"]  # [N, D]; NaN for bad images
    bad: Mapping[int, str]  # by row, why an image has no descriptor
    num_extracted: int = 0  # how many were computed now, not read from a store
    seconds: float = 0.0  # what that took, compilation included

    def good_rows(self, skip_bad: bool) -> list[int]:
        """Lists the queries that have a descriptor.

        Raises:
          UserError: a query has none and is not to be skipped; or all have none.
        """
        bad = self.bad
        if bad and not skip_bad:
            first = min(bad)
            raise UserError(
                f"skip_bad: {len(bad)} of {len(self.names)} queries have no "
                f"descriptor, the first is {self.names[first]} ({bad[first]}); repair "
                "the photos, or skip such queries by this option"
            )
        good = [row for row in range(len(self.names)) if row not in bad]
        if not good:
            raise UserError(f"no query has a descriptor; of the first: {bad[min(bad)]}")
        return good

    def report_bad(self, name: str, shown: int = 5) -> Iterator[str]:
        """Yields lines on the bad images of the set, with the first few reasons."""
        if self.bad:
            yield f"{len(self.bad)} bad photos of the {name}:"
        for row, why in sorted(self.bad.items())[:shown]:
            yield f"  {self.names[row]}: {why}"
        if len(self.bad) > shown:
            yield f"  and {len(self.bad) - shown} more"


def image_sets(dataset: Dataset, split: str, longest_side: int) -> ImageSets:
    """The images of a dataset: queries and database.

    Of a split of labelled photos they are the database, and those that have a box are
    queries. A dataset with neither queries nor a split has a set for each of its
    splits. `longest_side` of a photo is in pixels, after shrinking.
    """

    def views(
        name: str, rows: Sequence[int] | None, boxes: Sequence[Box | None] | None
    ) -> Sequence[View]:
        return RecordViews(dataset.records(name), longest_side, rows, boxes)

    if split:
        boxes = leave_one_out_boxes(dataset, split)
        sets = {"database": views(split, None, None)}
        if boxes:
            return {"query": views(split, [*boxes], [*boxes.values()])} | sets
        return sets
    if dataset.ground_truth is None:
        names = dataset.builder.info.splits
        return {name: views(name, None, None) for name in names}
    truth = from_revisited(dataset.ground_truth, dataset.name)
    rows = range(len(truth.queries))
    query_boxes = None if truth.boxes is None else [_box(box) for box in truth.boxes]
    return {
        "query": views("query", rows, query_boxes),
        "database": views("database", None, None),
    }


def leave_one_out_boxes(dataset: Dataset, split: str) -> dict[int, Box]:
    """The boxes of labelled photos, by row, for those that have one."""
    truth = dataset.leave_one_out if split == "benchmark" else None
    boxes = enumerate(truth["boxes"]) if truth else ()
    return {row: _box(box) for row, box in boxes if box is not None}


def _box(sides: Any) -> Box:
    x0, y0, x1, y1 = (float(side) for side in sides)
    return x0, y0, x1, y1
