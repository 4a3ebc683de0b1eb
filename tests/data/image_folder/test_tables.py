"""A CSV of photos instead of class folders."""

import pytest

from tokret.errors import UserError


@pytest.fixture
def folder(tmp_path, jpeg):
    root = tmp_path / "photos"
    (root / "sub folder").mkdir(parents=True)
    names = [
        "sub folder/a 'b'.jpg",
        'sub folder/"c".jpg',
        "写真 é.jpg",
        "d.jpg",
        "e.png",
    ]
    for i, name in enumerate(names):
        (root / name).write_bytes(jpeg(i, kind="PNG" if i == 4 else "JPEG"))
    return root


def write(path, rows, **options):
    text = "".join(row + options.get("end", "\n") for row in rows)
    path.write_bytes(text.encode(options.get("encoding", "utf-8")))
    return path


ROWS = (
    "label,path",
    "Café,sub folder/a 'b'.jpg",
    'Café,"sub folder/""c"".jpg"',
    '"7, rue",写真 é.jpg',
    "3,d.jpg",
    "3,./e.png",
)


@pytest.mark.parametrize(
    "options", [{}, {"end": "\r\n"}, {"encoding": "utf-8-sig", "end": "\r\n"}]
)
def test_paths_and_labels_of_any_text(read, folder, tmp_path, options):
    table = write(folder / "list.csv", ROWS, **options)
    fields = {"table": str(table), "validation_fraction": 0.0}
    dataset, records = read(tmp_path / "d", "image_folder", **fields)
    assert dataset.builder.info.features["label"].names == ["3", "7, rue", "Café"]
    found = {r["filename"].decode(): r["label"] for r in records["train"]}
    assert found == {
        "sub folder/a 'b'.jpg": 2,
        'sub folder/"c".jpg': 2,
        "写真 é.jpg": 1,
        "d.jpg": 0,
        "e.png": 0,
    }
    # The same from another place.
    table = write(tmp_path / "other.csv", ROWS)
    fields |= {"table": str(table), "root": str(folder)}
    _, again = read(tmp_path / "d", "image_folder", **fields)
    assert [r["image"] for r in again["train"]] == [
        r["image"] for r in records["train"]
    ]


def test_paths_of_windows_name_the_same_photos(read, folder, tmp_path, jpeg):
    (folder / "one\\file.jpg").write_bytes(jpeg(9))
    rows = ("label,path", "1,sub folder\\a 'b'.jpg", "2,one\\file.jpg", "2,d.jpg")
    table = write(folder / "list.csv", rows)
    listed = write(tmp_path / "list.txt", ["sub folder\\a 'b'.jpg", "one\\file.jpg"])
    fields = {"table": str(table), "train_list": str(listed)}
    _, records = read(tmp_path / "d", "image_folder", **fields)
    found = {r["filename"].decode() for each in records.values() for r in each}
    assert found == {"sub folder/a 'b'.jpg", "one\\file.jpg"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("3,./d.jpg", r"line 7: d\.jpg is in line 5 too"),
        ("3,", "line 7: '' is no photo's path"),
        (",f.jpg", "line 7: '' is no class's name"),
        ("3,f.mp4", r"line 7: f\.mp4 must end in one of: \.jpg"),
        ("3", "line 7: has 1 fields"),
        ("3,d.jpg, IL", "line 7: has 3 fields, the heading 2; quote values"),
        ("3,two\x0blines.jpg", "line 7: .* is no photo's path"),
    ],
)
def test_rows_that_cannot_be(read, folder, tmp_path, row, message):
    table = write(folder / "list.csv", [*ROWS, row])
    with pytest.raises(UserError, match=rf"list\.csv, {message}"):
        read(tmp_path / "d", "image_folder", table=str(table))
    assert not (tmp_path / "d").exists()


def test_photos_that_are_not_there(read, folder, tmp_path, capsys):
    table = write(folder / "list.csv", [*ROWS, "3,none.jpg"])
    fields = {"table": str(table), "validation_fraction": 0.0}
    with pytest.raises(UserError, match=r"1 of 6 photos are missing: none\.jpg"):
        read(tmp_path / "d", "image_folder", **fields)
    _, records = read(tmp_path / "d", "image_folder", skip_bad=True, **fields)
    assert len(records["train"]) == 5
    assert "1 photo skipped: none.jpg (missing)" in capsys.readouterr().err


def test_boxes_are_for_the_benchmark(read, folder, tmp_path):
    boxes = [",,,", "1,2,30.5,20", ",,,", "0,0,9,9", ""]
    rows = ["label,path,x0,y0,x1,y1"]
    rows += [f"{row},{box}" for row, box in zip(ROWS[1:], boxes, strict=True)]
    table = write(folder / "list.csv", rows)
    classes = write(tmp_path / "classes", ["Café", "7, rue"])
    fields = {"table": str(table), "benchmark_classes": str(classes)}
    dataset, records = read(tmp_path / "d", "image_folder", **fields)
    assert {name: len(split) for name, split in records.items()} == {
        "train": 1,
        "validation": 1,
        "benchmark": 3,
    }
    assert dataset.classes == 1 and dataset.ground_truth is None
    assert {record["label"] for record in records["benchmark"]} == {-1}
    assert dataset.leave_one_out == {
        "classes": ["7, rue", "Café"],
        "labels": [1, 1, 0],
        "boxes": [None, [1, 2, 30.5, 20], None],
    }
    with pytest.raises(UserError, match=r"resize: .*list\.csv has boxes"):
        read(tmp_path / "d", "image_folder", resize=20, **fields)
    with pytest.raises(UserError, match=r"max_pixels: .*list\.csv has boxes"):
        read(tmp_path / "d", "image_folder", max_pixels=200_000_000, **fields)


@pytest.mark.parametrize(
    "box", ["1,2,3", "a,2,3,4", "5,2,3,4", "-1,0,3,4", "0,0,nan,4"]
)
def test_boxes_that_are_none(read, folder, tmp_path, box):
    rows = ["path,label,x0,y0,x1,y1", f"d.jpg,3,{box}"]
    table = write(folder / "list.csv", rows)
    with pytest.raises(UserError, match="line 2: .* is no box"):
        read(tmp_path / "d", "image_folder", table=str(table))


def test_photos_that_are_skipped_leave_the_benchmark(read, folder, tmp_path):
    (folder / 'sub folder/"c".jpg').write_bytes(b"<html>")
    table = write(folder / "list.csv", [*ROWS, "Café,f.jpg"])
    classes = write(tmp_path / "classes", ["Café", "7, rue"])
    fields = {"table": str(table), "benchmark_classes": str(classes)}
    dataset, records = read(tmp_path / "d", "image_folder", skip_bad=True, **fields)
    assert [r["filename"] for r in records["benchmark"]] == [
        b"sub folder/a 'b'.jpg",
        "写真 é.jpg".encode(),
    ]
    assert dataset.leave_one_out["labels"] == [1, 0]
