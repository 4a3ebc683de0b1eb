import io

import numpy as np
import pytest
from PIL import Image

from tokret.data.augmentation import Augmentation
from tokret.data.streams import (
    GOOD,
    bad_record_reason,
    names_of_step,
    training_batches,
    validation_batches,
)
from tokret.errors import UserError


def record(i):
    pixels = np.full((20, 24, 3), (10 * i, 255 - 10 * i, 128), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return {"image": buffer.getvalue(), "label": i, "filename": f"{i}.png".encode()}


RECORDS = [record(i) for i in range(11)]
AUGMENTATION = Augmentation(size=8)


def batches(count, **options):
    options = {"batch_size": 4, "seed": 0, "threads": 2, **options}
    stream = training_batches(RECORDS, AUGMENTATION, **options)
    return [next(stream) for _ in range(count)]


def same(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        for name in x:
            np.testing.assert_array_equal(x[name], y[name])


def test_the_stream_resumes_at_any_step_with_any_threads():
    whole = batches(7)
    assert whole[0]["images"].shape == (4, 8, 8, 3)
    assert whole[0]["images"].dtype == np.uint8 and whole[0]["labels"].dtype == np.int32
    same(batches(4, first_step=3, threads=5), whole[3:])
    assert any(
        (a["labels"] != b["labels"]).any()
        for a, b in zip(whole, batches(7, seed=1), strict=True)
    )


def test_every_epoch_has_every_photo_in_another_order():
    labels = np.concatenate([batch["labels"] for batch in batches(11)])
    epochs = labels.reshape(4, 11)
    for epoch in epochs:
        assert sorted(epoch) == list(range(11))
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_processes_divide_the_same_global_batch():
    whole = batches(3)
    parts = [batches(3, process=(i, 2)) for i in range(2)]
    for step in range(3):
        together = np.concatenate([part[step]["labels"] for part in parts])
        np.testing.assert_array_equal(together, whole[step]["labels"])


@pytest.mark.parametrize("processes", [1, 2])
def test_validation_sees_every_photo_once(processes):
    seen = []
    counts = set()
    for index in range(processes):
        options = {"size": 8, "batch_size": 4, "process": (index, processes)}
        found = list(validation_batches(RECORDS, **options))
        counts.add(len(found))
        for batch in found:
            assert batch["images"].shape == (4 // processes, 8, 8, 3)
            seen += batch["labels"][batch["weights"] == 1].tolist()
    assert sorted(seen) == list(range(11))
    assert counts == {3}  # all processes take part in every step


def test_what_cannot_be_batched():
    with pytest.raises(UserError, match="larger than the 11"):
        batches(1, batch_size=12)
    with pytest.raises(UserError, match="3 processes"):
        batches(1, process=(0, 3))


def spoilt(*places):
    return [
        r | {"image": b"<html>"} if i in places else r for i, r in enumerate(RECORDS)
    ]


def test_bad_photos_are_replaced_alike_whenever_the_stream_begins():
    def run(count, **options):
        options = {"batch_size": 4, "seed": 0, "threads": 2, **options}
        stream = training_batches(spoilt(2, 7), AUGMENTATION, **options)
        return [next(stream) for _ in range(count)]

    whole, good = run(22), batches(22)
    same(run(19, first_step=3, threads=5), whole[3:])
    parts = [run(22, process=(i, 2)) for i in range(2)]
    bad = np.concatenate([batch["bad"] for batch in whole])
    together = [part[step]["bad"] for step in range(22) for part in parts]
    np.testing.assert_array_equal(np.concatenate(together), bad)
    # Each of the two once in each of eight epochs of eleven photos.
    assert sorted(bad[bad != GOOD]) == [2] * 8 + [7] * 8
    for ours, theirs in zip(whole, good, strict=True):
        kept = ours["bad"] == GOOD
        np.testing.assert_array_equal(
            np.where(kept, theirs["labels"], ours["bad"]), theirs["labels"]
        )
        np.testing.assert_array_equal(ours["images"][kept], theirs["images"][kept])
        assert not set(ours["labels"]) & {2, 7}
    stand_ins = {int(label) for b in whole for label in b["labels"][b["bad"] != GOOD]}
    assert len(stand_ins) > 2


def test_a_bad_photo_has_no_weight_in_validation():
    found = list(validation_batches(spoilt(2), size=8, batch_size=4))
    bad = np.concatenate([batch["bad"] for batch in found])
    weights = np.concatenate([batch["weights"] for batch in found])
    assert bad.tolist() == [-1, -1, 2] + [-1] * 9
    assert weights.tolist() == [1, 1, 0] + [1] * 8 + [0]


@pytest.mark.parametrize(
    "damage",
    [
        {"image": None},
        {"image": RECORDS[0]["image"][:40]},
        {"image": b""},
        RuntimeError("chunk\nhash mismatch"),
    ],
)
def test_the_reason_of_a_bad_record_is_one_line(damage):
    class Rotten:
        def __len__(self):
            return len(RECORDS)

        def __getitem__(self, place):
            if place == 3 and isinstance(damage, Exception):
                raise damage
            return RECORDS[place] | (damage if place == 3 else {})

    records = Rotten()
    (batch,) = validation_batches(records, size=8, batch_size=11, threads=2)
    assert batch["weights"].tolist() == [1, 1, 1, 0] + [1] * 7
    words = bad_record_reason(records, 3)
    assert "3" in words and "\n" not in words
    assert "second try" in bad_record_reason(records, 4)


def test_nothing_but_broken_photos_is_an_error_that_names_one():
    broken = [{**RECORDS[0], "image": b"<html>", "filename": b"shelf/3.jpg"}] * 4
    stream = training_batches(broken, AUGMENTATION, batch_size=4, seed=0)
    with pytest.raises(UserError, match=r"64 photos in a row .*shelf/3\.jpg"):
        next(stream)


def test_the_photos_of_a_step_are_known_without_its_batch():
    for step, batch in enumerate(batches(7), 1):
        names = names_of_step(RECORDS, batch_size=4, seed=0, step=step)
        assert names == [f"{label}.png" for label in batch["labels"]]
