import numpy as np
import pytest

from tokret.errors import UserError
from tokret.training.unreadable_photos import Skipping

RECORDS = [
    {"image": b"<html>", "label": 0, "filename": f"{i}.jpg".encode()}
    for i in range(1000)
]


def batch(*bad):
    return {"labels": np.zeros(len(bad)), "bad": np.array(bad)}


def test_what_is_skipped_is_counted_named_and_forgotten():
    said = []
    skipping = Skipping(RECORDS, most=0.01, say=said.append)
    assert set(skipping.sift(batch(-1, -1))) == {"labels"}
    assert skipping.report() == 0 and not said
    skipping.sift(batch(-1, 5))
    skipping.sift(batch(7, 8))
    assert skipping.report() == 3
    (line,) = said
    assert line.startswith("warning: 3 photos skipped, the first is: 5.jpg is no photo")
    assert skipping.report() == 0 and len(said) == 1


def test_too_many_in_an_epoch_stop_the_run():
    skipping = Skipping(RECORDS, most=0.01, say=print)
    for _ in range(2):
        skipping.sift(batch(*range(10)))
        skipping.new_epoch()
    skipping.sift(batch(*range(10)))
    with pytest.raises(
        UserError, match=r"11 photos .*max_skipped_fraction .*\(10\).* 4\.jpg"
    ):
        skipping.report()
        skipping.sift(batch(-1, 4))


def test_few_stop_no_run():
    skipping = Skipping(RECORDS[:20], most=0.0, say=print)
    skipping.sift(batch(1, 2, 3))
    with pytest.raises(UserError, match="4 photos"):
        skipping.sift(batch(4))
