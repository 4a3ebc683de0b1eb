"""Photos that cannot be decoded any more: counted, named, and too many of them."""

from collections.abc import Callable

from tokret.data.records import Records
from tokret.data.streams import GOOD, Batch, bad_record_reason
from tokret.errors import UserError
from tokret.runtime import cluster

MANY = 3  # fewer stop no run, however short its epochs


class Skipping:
    """Takes note of a stream's bad photos; processes count theirs together."""

    def __init__(self, records: Records, *, most: float, say: Callable[[str], None]):
        """Begins to count.

        Args:
          records: of the split.
          most: share of them that may be skipped in an epoch.
          say: prints a line.
        """
        self._records = records
        self._most = max(MANY, int(most * len(records)))
        self._say = say
        self._in_epoch = 0
        self._unreported = 0
        self._first = GOOD

    def sift(self, batch: Batch) -> Batch:
        """Returns what the devices need of a batch.

        Raises:
          UserError: if this process alone skipped too many photos in this epoch.
        """
        bad = batch["bad"][batch["bad"] != GOOD]
        if len(bad):
            self._first = int(bad[0]) if self._first == GOOD else self._first
            self._unreported += len(bad)
            self._in_epoch += len(bad)
        self._check(self._in_epoch, self._first)
        return {name: array for name, array in batch.items() if name != "bad"}

    def report(self) -> int:
        """Returns how many were skipped since the last report; warns if any were.

        All processes report at once, and each returns the sum.

        Raises:
          UserError: if all together skipped too many photos in this epoch.
        """
        mine = (self._unreported, self._in_epoch, self._first)
        found = cluster.gathered(mine)
        count, in_epoch = (int(total) for total in found[:, :2].sum(axis=0))
        if count:
            first = int(next(place for place in found[:, 2] if place != GOOD))
            self._check(in_epoch, first)
            self._say(
                f"warning: {count} photos skipped, the first is: "
                f"{bad_record_reason(self._records, first)}"
            )
        self._unreported, self._first = 0, GOOD
        return count

    def _check(self, in_epoch: int, first: int) -> None:
        if in_epoch > self._most:
            raise UserError(
                f"{in_epoch} photos of this epoch cannot be decoded, more than "
                f"config.run.max_skipped_fraction allows ({self._most}); the first is: "
                f"{bad_record_reason(self._records, first)}; look at the disk, or "
                "prepare the dataset again"
            )

    def new_epoch(self) -> None:
        """Begins to count anew."""
        self._in_epoch = 0
