import numpy as np
import pytest

from tokret.errors import UserError
from tokret.training.input_batches import SkippedPhotos

RECORDS = [
    {"image": b"<html>", "label": 0, "filename": f"{i}.jpg".encode()}
    for i in range(1000)
]


def batch(*bad):
    return {"labels": np.zeros(len(bad)), "bad": np.array(bad)}


def test_what_is_skipped_is_counted_named_and_forgotten():
    lines = []
    skipped = SkippedPhotos(RECORDS, max_fraction=0.01, print_line=lines.append)
    assert set(skipped.count(batch(-1, -1))) == {"labels"}
    assert skipped.report() == 0 and not lines
    skipped.count(batch(-1, 5))
    skipped.count(batch(7, 8))
    assert skipped.report() == 3
    (line,) = lines
    assert line.startswith("warning: 3 photos skipped, the first is: 5.jpg: not a")
    assert skipped.report() == 0 and len(lines) == 1


def test_too_many_in_an_epoch_stop_the_run():
    skipped = SkippedPhotos(RECORDS, max_fraction=0.01, print_line=print)
    for _ in range(2):
        skipped.count(batch(*range(10)))
        skipped.new_epoch()
    skipped.count(batch(*range(10)))
    with pytest.raises(
        UserError, match=r"11 photos .*max_skipped_fraction .*\(10\).* 4\.jpg"
    ):
        skipped.report()
        skipped.count(batch(-1, 4))


def test_few_stop_no_run():
    skipped = SkippedPhotos(RECORDS[:20], max_fraction=0.0, print_line=print)
    skipped.count(batch(1, 2, 3))
    with pytest.raises(UserError, match="4 photos"):
        skipped.count(batch(4))
