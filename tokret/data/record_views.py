"""Views of a split's records, read from the disk when one is asked for."""

from collections.abc import Iterator, Sequence
from typing import overload

from tokret.data.streams import BadRecordError, Records, read
from tokret.data.views import Box, View
from tokret.errors import UserError


class RecordViews(Sequence[View]):
    """Views of records; of a million photos only those in work are in memory."""

    def __init__(
        self,
        records: Records,
        longest_side: int,
        places: Sequence[int] | None = None,
        boxes: Sequence[Box | None] | None = None,
    ) -> None:
        """Names the views.

        Args:
          records: a split's.
          longest_side: of a whole photo after shrinking, in pixels.
          places: which records, in order; None for all.
          boxes: the part of each that is looked at; None for all of all.
        """
        self._records, self._side = records, longest_side
        self._places = range(len(records)) if places is None else places
        self._boxes = [None] * len(self._places) if boxes is None else boxes

    def __len__(self) -> int:
        """The number of views."""
        return len(self._places)

    @overload
    def __getitem__(self, row: int) -> View: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[View]: ...
    def __getitem__(self, row: int | slice) -> View | Sequence[View]:
        """Reads a view's record.

        Raises:
          UserError: if the disk does not give it back.
        """
        if isinstance(row, slice):
            return RecordViews(
                self._records, self._side, self._places[row], self._boxes[row]
            )
        try:
            record = read(self._records, self._places[row])
        except BadRecordError as error:
            raise UserError(str(error)) from error
        name = record["filename"].decode()
        return View(record["image"], name, self._boxes[row], self._side)

    def __iter__(self) -> Iterator[View]:
        """Reads one after the other."""
        return (self[row] for row in range(len(self)))
