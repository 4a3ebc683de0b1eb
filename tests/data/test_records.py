import pytest

from tokret.data.records import RecordViews
from tokret.errors import UserError


class Disk:
    """Five records of which the fourth cannot be read."""

    def __len__(self):
        return 5

    def __getitem__(self, index):
        if index == 3:
            raise OSError("a bad\nsector")
        return {
            "image": bytes([index + 1]),
            "label": 0,
            "filename": f"{index}".encode(),
        }


def test_views_of_some_records_and_slices_of_them():
    views = RecordViews(Disk(), 64, [4, 2, 0], [None, (0.0, 0.0, 1.0, 1.0), None])
    chosen = views[::-1]
    assert (len(views), len(chosen)) == (3, 3)
    assert [view.name for view in chosen] == ["0", "2", "4"]
    assert chosen[1:][0].box == (0.0, 0.0, 1.0, 1.0)
    assert views[-1].name == "0" and views[-1].longest_side == 64
    with pytest.raises(IndexError):
        views[3]


def test_a_record_that_cannot_be_read_is_named():
    with pytest.raises(UserError, match="record 3 cannot be read: a bad sector"):
        list(RecordViews(Disk(), 64))
