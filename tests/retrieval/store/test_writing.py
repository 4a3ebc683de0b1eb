"""Stores: written, interrupted anywhere, resumed and refused."""

import json
import os
import zlib

import msgspec
import numpy as np
import pytest

from tokret.errors import UserError
from tokret.retrieval.store.reading import read_store
from tokret.retrieval.store.record import Images, Record
from tokret.retrieval.store.writing import StoreWriter, write_store

COUNT, DIMS = 11, 3
ORDER = np.array([4, 0, 7, 9, 1, 2, 10, 3, 5, 8, 6])  # batches go by canvases
DAMAGE = ("torn", "garbled", "rows", "gone", "longer", "types", "bad rows")
BAD = {7: "record 7 cannot be read", 3: "photo 3 cannot be decoded"}


def record(**changes):
    images = Images(
        names=tuple(f"photo {i}.jpg" for i in range(COUNT)),
        sizes=tuple((32 + i, 48) for i in range(COUNT)),
        boxes=(None,) * 10 + ((1.5, 2.0, 30.0, 31.0),),
        digests=tuple(f"{i:016x}" for i in range(COUNT)),
    )
    fields = {
        "model": {"trunk": "tiny", "dim": DIMS},
        "weights": "00ff",
        "preprocessing": {"longest_side": 64, "scales": [1.0, 0.7071067811865476]},
        "images": images,
    }
    return Record(**(fields | changes))


def rows_of():
    rows = np.random.default_rng(0).normal(size=(COUNT, DIMS)).astype(np.float32)
    rows[list(BAD)] = np.nan
    return rows


def make(folder, batch=2):
    """Writes missing rows, as the extraction does; counts batches."""
    rows, done = rows_of(), 0
    with write_store(folder, record()) as writer:
        for start in range(0, COUNT, batch):
            part = ORDER[start : start + batch]
            if not writer.finished[part].all():
                bad = {int(row): BAD[row] for row in part if row in BAD}
                writer.write(part, rows[part], bad)
                done += 1
        writer.finish()
    return done


def content(folder):
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.name != ".lock"
    }


def test_a_written_store_is_read(tmp_path):
    assert make(tmp_path / "s") == 6
    store = read_store(tmp_path / "s")
    assert store.names == record().images.names
    np.testing.assert_array_equal(store.descriptors, rows_of())
    assert isinstance(store.descriptors, np.memmap)
    assert not store.descriptors.flags.writeable
    assert store.bad == BAD and store.record == record()
    assert sorted(content(tmp_path / "s")) == ["descriptors.npy", "store.json"]
    # Plain files that others can read too.
    np.testing.assert_array_equal(np.load(tmp_path / "s/descriptors.npy"), rows_of())
    before = content(tmp_path / "s")
    assert make(tmp_path / "s") == 0
    assert content(tmp_path / "s") == before


class CutError(BaseException):
    """Ends a process: nothing may catch it."""


def test_cut_before_any_call_that_writes_it_ends_the_same(tmp_path, monkeypatch):
    make(tmp_path / "whole")
    expected = content(tmp_path / "whole")
    calls = ("pwrite", "fsync", "replace", "ftruncate")
    real = {name: getattr(os, name) for name in calls}
    left = [0]

    def watched(name):
        def call(*arguments):
            if left[0] == 0:
                raise CutError
            left[0] -= 1
            # The disk may take less than it was given.
            if name == "pwrite" and len(arguments[1]) > 5 and left[0] % 3 == 0:
                arguments = (arguments[0], arguments[1][:5], arguments[2])
            return real[name](*arguments)

        return call

    for name in calls:
        monkeypatch.setattr(os, name, watched(name))
    for cut in range(1000):
        folder = tmp_path / f"cut {cut}"
        left[0] = cut
        try:
            make(folder)
        except CutError:
            left[0] = -1
            make(folder)
        else:
            break
        assert content(folder) == expected, cut
    assert 40 < cut < 999


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_rows_are_extracted_again(tmp_path, damage):
    make(tmp_path / "whole")
    folder = tmp_path / "s"
    with write_store(folder, record()) as writer:
        for part in (ORDER[:4], ORDER[4:8]):
            writer.write(part, rows_of()[part], {r: BAD[r] for r in BAD if r in part})
    journal, rows = folder / "finished", folder / "descriptors.npy"
    lines, array = journal.read_bytes(), bytearray(rows.read_bytes())
    if damage == "torn":
        journal.write_bytes(lines[:-3])
    elif damage in ("types", "bad rows"):
        odd = b'[["4"],{},0]' if damage == "types" else b'[[4],{"99":"?"},0]'
        journal.write_bytes(b"%08x %s\n" % (zlib.crc32(odd), odd))
    elif damage == "garbled":
        journal.write_bytes(lines.replace(b"4,", b"5,", 1))
    elif damage == "rows":
        array[-1 - 4 * DIMS * 10] ^= 1  # row 0, of the first batch
        rows.write_bytes(array)
    elif damage == "gone":
        rows.unlink()
    else:
        journal.write_bytes(lines + b"\x00" * 100)
    kept = {"torn": 4, "rows": 4, "longer": 8}.get(damage, 0)
    assert StoreWriter(folder, record()).finished.sum() == kept
    (folder / ".store.json.77").write_text("a draft that a kill left")
    make(folder)
    assert content(folder) == content(tmp_path / "whole")


def changed_images(**changes):
    return {"images": msgspec.structs.replace(record().images, **changes)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": "11aa"}, "weights: digest 00ff and 11aa"),
        ({"model": {"trunk": "tiny", "dim": 4}}, "model.dim: 3 and 4"),
        (
            {"preprocessing": {"longest_side": 65, "scales": [1.0]}},
            "preprocessing.longest_side: 64 and 65",
        ),
        (
            changed_images(digests=("f" * 16,) + record().images.digests[1:]),
            "photos: .* of image 0, 'photo 0.jpg'",
        ),
        (
            changed_images(names=("other.jpg",) + record().images.names[1:]),
            "names: 'photo 0.jpg' and 'other.jpg' of image 0",
        ),
        (changed_images(boxes=(None,) * COUNT), "boxes: .* of image 10"),
        (
            {"images": Images(("a",), ((1, 1),), (None,), ("0",))},
            "images: 11 and 1 of them",
        ),
    ],
)
@pytest.mark.parametrize("complete", [True, False])
def test_nothing_is_mixed(tmp_path, changes, message, complete):
    folder = tmp_path / "s"
    if complete:
        make(folder)
    else:
        with write_store(folder, record()) as writer:
            writer.write(ORDER[:2], rows_of()[ORDER[:2]], {})
    before = content(folder)
    with pytest.raises(UserError, match=message) as caught:
        with write_store(folder, record(**changes)):
            pass
    assert str(caught.value).startswith(str(folder)) and "remove" in str(caught.value)
    assert content(folder) == before


def test_a_second_writer_is_refused(tmp_path):
    with write_store(tmp_path / "s", record()):
        with pytest.raises(UserError, match="another process is writing"):
            with write_store(tmp_path / "s", record()):
                pass
    make(tmp_path / "s")


def test_a_full_disk_is_one_line_and_keeps_what_is_finished(tmp_path, monkeypatch):
    folder = tmp_path / "s"

    def full(*_):
        raise OSError(28, "No space left on device")

    with write_store(folder, record()) as writer:
        writer.write(ORDER[:2], rows_of()[ORDER[:2]], {})
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", full)
            with pytest.raises(UserError, match="No space left on device; finished"):
                writer.write(ORDER[2:4], rows_of()[ORDER[2:4]], {})
    assert make(folder) == 5
    with pytest.raises(UserError, match="cannot be created"):
        make(folder / "store.json" / "s")


def test_photos_that_cannot_be_opened_come_last(tmp_path):
    good = [row for row in range(COUNT) if row not in BAD]
    with write_store(tmp_path / "s", record()) as writer:
        with pytest.raises(UserError, match="no photo can be read; .* photo 3"):
            writer.mark_bad(BAD)
        writer.write(np.array(good), rows_of()[good], {})
        writer.mark_bad(BAD)
        store = writer.finish()
    np.testing.assert_array_equal(store.descriptors, rows_of())
    assert store.bad == BAD


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(UserError, match="not a store"):
        read_store(tmp_path)
    folder = tmp_path / "s"
    with write_store(folder, record()) as writer:
        writer.write(ORDER[:2], rows_of()[ORDER[:2]], {})
    with pytest.raises(UserError, match="not complete"):
        read_store(folder)
    make(folder)
    text = (folder / "store.json").read_text()
    array = (folder / "descriptors.npy").read_bytes()
    for data in (array[:-4], array[:-1] + b"\x00", b"", b"\x93NUMPY\x09"):
        (folder / "descriptors.npy").write_bytes(data)
        with pytest.raises(UserError, match=r"descriptors\.npy: missing or changed"):
            read_store(folder)
    (folder / "descriptors.npy").write_bytes(array)
    fields = json.loads(text)
    stored_record = fields["record"]
    stored_images = stored_record["images"]
    for part, name, value in (
        (fields, "format", 2),
        (stored_images, "names", "abc"),
        (stored_images, "names", [1] * COUNT),
        (stored_images, "names", ["a"]),
        (stored_images, "sizes", [[1, -1]] * COUNT),
        (stored_images, "sizes", [[1, 1.5]] * COUNT),
        (stored_images, "boxes", [[1, 2]] * COUNT),
        (stored_images, "digests", [None] * COUNT),
        (stored_images, "digests", ["f" * 65] * COUNT),
        (stored_record, "model", []),
        (stored_record, "weights", 7),
        (fields, "bad", {"99": "x"}),
        (fields, "bad", {"-1": "x"}),
        (fields, "bad", [1]),
        (fields, "dimensions", "3"),
        (fields, "dimensions", 10**12),
        (fields, "checksum", None),
    ):
        before, part[name] = part[name], value
        (folder / "store.json").write_text(json.dumps(fields))
        part[name] = before
        with pytest.raises(UserError, match="s/") as caught:
            read_store(folder)
        assert "\n" not in str(caught.value) and "remove" in str(caught.value)
    for spoilt in ("", "[" * 10**5, "{}", "[]", text[: len(text) // 2], "\x00"):
        (folder / "store.json").write_text(spoilt)
        with pytest.raises(UserError, match="store.json"):
            read_store(folder)
