"""The check of every dataset, sound and damaged, from the command line."""

import csv
import os
import shutil

import numpy as np
import pytest

from tokret.data import datasets
from tokret.data.checking import photo_checks
from tokret.data.checking.photo_checks import PhotoToCheck
from tokret.data.checking.report import Digests
from tokret.data.preparing.photo_files import PhotoLocation


@pytest.fixture
def check(tokret, tmp_path):
    """Runs it: (status, what it prints, the CSV's rows); writes nothing else."""

    def run(name, *arguments):
        folder = tmp_path / "out"
        folder.mkdir(exist_ok=True)
        output = folder / "problems.csv"
        words = ("check", name, "--workers=1", f"--output={output}", *arguments)
        status, out, err = tokret("data", *words)
        assert list(folder.iterdir()) in ([output], [])
        rows = []
        if output.exists():
            with output.open(encoding="utf-8") as file:
                rows = [tuple(row.values()) for row in csv.DictReader(file)]
            output.unlink()
        assert status in (0, 1) or err.startswith("error: "), err
        return status, out + err, rows

    return run


@pytest.fixture
def same():
    """Returns the contents of all files below a folder."""

    def state(folder):
        return {
            path: (path.stat().st_size, path.stat().st_mtime_ns)
            for path in folder.rglob("*")
        }

    return state


def kinds(rows):
    return {(name, problem) for name, problem, _ in rows}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_folder_of_photos(check, photo_folder, tmp_path, jpeg, workers):
    root = shutil.copytree(photo_folder, tmp_path / "photos")
    root_flag = f"--root={root}"
    status, text, rows = check("image_folder", root_flag, f"--workers={workers}")
    assert (status, rows) == (0, [])
    assert "no defects" in text and "photos checked     18" in text
    first = (root / "ash" / "photo 0.jpg").read_bytes()
    spoilt = {
        "ash/a copy.jpg": first,
        "ash/cut.jpg": first[:-200],
        "birch/empty.jpg": b"",
        "birch/also empty.jpg": b"",
        'birch/une "page", 写真.jpg': b"<html>",
        "birch/tiny.jpg": jpeg(7, (40, 8)),
    }
    for name, data in spoilt.items():
        (root / name).write_bytes(data)
    (root / "ash" / "loop.png").symlink_to(root / "ash" / "loop.png")
    (root / "ash" / "gone.png").symlink_to(root / "ash" / "none")
    status, text, rows = check("image_folder", root_flag, f"--workers={workers}")
    assert status == 1 and "photos checked     26" in text
    assert kinds(rows) == {
        ("ash/photo 0.jpg", "duplicate"),
        ("ash/cut.jpg", "broken"),
        ("birch/empty.jpg", "empty"),
        ("birch/also empty.jpg", "empty"),
        ('birch/une "page", 写真.jpg', "broken"),
        ("birch/tiny.jpg", "tiny"),
        ("ash/loop.png", "unreadable"),
        ("ash/gone.png", "missing"),
    }
    assert ("ash/photo 0.jpg", "duplicate", "the same bytes as ash/a copy.jpg") in rows
    assert "empty           2" in text.replace("\t", " ") or "empty" in text
    assert "its shorter side has 8 pixels" in text
    assert "expected" not in text  # of one's own photos nothing is known
    assert any("a link to " in detail for *_, detail in rows)
    status, _, rows = check("image_folder", root_flag, "--smallest=2")
    assert status == 1 and ("birch/tiny.jpg", "tiny") not in kinds(rows)
    os.mkfifo(root / "ash" / "pipe.jpg")
    _, _, rows = check("image_folder", root_flag, "--max_pixels=300")
    details = {name: detail for name, _, detail in rows}
    assert details["ash/pipe.jpg"] == "is a named pipe, where a file is expected"
    assert "more than 300 (max_pixels)" in details["birch/tiny.jpg"]


def test_nothing_is_written_where_no_output_is_named(
    tokret, photo_folder, tmp_path, monkeypatch
):
    root = shutil.copytree(photo_folder, tmp_path / "photos")
    (root / "ash" / "empty.jpg").write_bytes(b"")
    (root / "ash" / "two\nlines.jpg").write_bytes(b"")
    (root / "notes.txt").write_bytes(b"")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    command = ("data", "check", "image_folder", f"--root={root}", "--workers=1")
    status, out, err = tokret(*command)
    assert status == 1 and not list((tmp_path / "here").iterdir()), err
    assert "note: 19 photos of 3 classes: ash, birch, café au lait" in out
    assert "note: 1 file skipped, not photos by their suffix: .txt 1" in out
    assert "ash/two\\nlines.jpg" in out
    assert out.endswith("--output=FILE.csv writes all of them to a CSV\n")
    status, out, _ = tokret(*command, "--output=bad.csv")
    assert out.endswith("written: bad.csv\n")
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["bad.csv"]


def test_batches_are_bounded_by_bytes_too(monkeypatch):
    monkeypatch.setattr(photo_checks, "BATCH_BYTES", 10)
    photos = [PhotoToCheck("", bytes(4)) for _ in range(7)]
    photos += [PhotoToCheck("", PhotoLocation("")) for _ in range(40)]
    assert [len(b) for b in photo_checks.make_batches(photos)] == [3, 3, 32, 9]


def test_a_table(check, photo_folder, tmp_path):
    table = tmp_path / "list.csv"
    table.write_text("path,label\nash/photo 0.jpg,1\nash/none.jpg,1\n")
    fields = (f"--root={photo_folder}", f"--table={table}")
    status, _, rows = check("image_folder", *fields)
    assert status == 1 and kinds(rows) == {("ash/none.jpg", "missing")}


def test_google_landmarks(check, gldv2_folder, tmp_path, same):
    root = shutil.copytree(gldv2_folder, tmp_path / "gldv2")
    before = same(tmp_path)
    status, text, rows = check("gldv2", f"--manual_dir={root}")
    assert {path: s for path, s in same(tmp_path).items() if path in before} == before
    # Few against the published ones, and nothing else is wrong.
    assert status == 1 and "photos in the lists     12  1,580,470" in text
    counts = {name for name, problem, _ in rows if problem == "count"}
    assert counts == {"photos in the lists", "classes", "tars"}
    archives = {name for name, problem, _ in rows if problem == "archive"}
    assert len(archives) == 498 and "images_499.tar" in archives
    assert len(rows) == 3 + 498 and "photos checked          12" in text

    whole = (root / "images_001.tar").read_bytes()
    (root / "images_001.tar").write_bytes(whole[: len(whole) // 3])
    status, _, rows = check("gldv2", f"--manual_dir={root}")
    found = {name: detail for name, problem, detail in rows if problem == "archive"}
    assert "is truncated" in found["images_001.tar"]
    missing = [name for name, problem, _ in rows if problem == "missing"]
    assert 3 <= len(missing) <= 6


def test_unpacked_google_landmarks(check, gldv2_folder, tmp_path, jpeg):
    root = tmp_path / "tree"
    lines = (gldv2_folder / "train_clean.csv").read_text().split()
    ids = [photo for line in lines[1:] for photo in line.rpartition(",")[2].split()]
    root.mkdir()
    shutil.copy(gldv2_folder / "train_clean.csv", root)
    for i, photo in enumerate(ids[1:]):
        folder = root.joinpath(*photo[:3])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{photo}.jpg").write_bytes(jpeg(i, (64, 48)) if i else b"")
    _, _, rows = check("gldv2", f"--manual_dir={root}")
    found = {row for row in kinds(rows) if row[1] != "count"}
    assert found == {(f"{ids[0]}.jpg", "missing"), (f"{ids[1]}.jpg", "empty")}


def test_revisited_oxford(check, oxford_folder, tmp_path, same):
    root = shutil.copytree(oxford_folder, tmp_path / "oxford")
    before = same(root)
    status, text, rows = check("roxford5k", f"--manual_dir={root}", "--smallest=1")
    assert same(root) == before
    assert status == 1 and "photos checked" in text
    assert kinds(rows) == {
        ("photos in the ground truth", "count"),
        ("queries", "count"),
    }
    archive = root / "oxbuild_images.tgz"
    archive.write_bytes(archive.read_bytes()[:-900])
    _, _, rows = check("roxford5k", f"--manual_dir={root}", "--smallest=1")
    found = {row for row in kinds(rows) if row[1] != "count"}
    assert ("oxbuild_images.tgz", "archive") in found
    assert ("all_souls_000002", "missing") in found


def test_oxford_of_2007_from_the_real_texts(check, shared, jpeg, tmp_path):
    root = shutil.copytree(shared / "oxford5k_gt", tmp_path / "oxford")
    (root / "all_souls_000013.jpg").write_bytes(jpeg(0))
    (root / "radcliffe_camera_999999.jpg").write_bytes(jpeg(1))
    _, text, rows = check("oxford5k", f"--manual_dir={root}", "--smallest=1")
    assert "photos       2  5,063" in text or " 2  5,063" in text
    missing = [name for name, problem, _ in rows if problem == "missing"]
    assert len(missing) > 500 and "all_souls_000013" not in missing


def test_distractors(check, tmp_path, jpeg, write_tar):
    root = tmp_path / "r1m"
    root.mkdir()
    names = [f"{i:02x}/{i}.jpg" for i in range(4)]
    (root / "revisitop1m.txt").write_text("\n".join(names))
    files = {f"jpg/{name}": jpeg(i, (64, 64)) for i, name in enumerate(names[:3])}
    write_tar(root / "revisitop1m.1.tar.gz", files, "w:gz")
    _, _, rows = check("revisitop1m", f"--manual_dir={root}")
    assert (names[3], "missing") in kinds(rows)
    assert sum(problem == "archive" for _, problem, _ in rows) == 99
    whole = (root / "revisitop1m.1.tar.gz").read_bytes()
    (root / "revisitop1m.1.tar.gz").write_bytes(whole[:-1])
    (root / "revisitop1m.2.tar").mkdir()
    _, _, rows = check("revisitop1m", f"--manual_dir={root}")
    details = {name: detail for name, problem, detail in rows if problem == "archive"}
    assert details["revisitop1m.1.tar.gz"].endswith("is truncated; download it again")
    assert "is a folder" in details["revisitop1m.2.tar"]
    assert {row for row in kinds(rows) if row[1] == "missing"} == {
        (names[3], "missing")
    }
    (root / "revisitop1m.2.tar").rmdir()
    (root / "revisitop1m.1.tar.gz").unlink()
    (root / "jpg" / "00").mkdir(parents=True)
    (root / "jpg" / names[0]).write_bytes(files[f"jpg/{names[0]}"])
    _, _, rows = check("revisitop1m", f"--manual_dir={root}")
    found = {row for row in kinds(rows) if row[1] != "count"}
    assert found == {(name, "missing") for name in names[1:]}


def test_what_was_prepared(check, photo_folder, tmp_path):
    for fraction in (0.0, 0.2):  # the same photos twice are not duplicates
        datasets.prepare(
            str(tmp_path / "d"),
            name="image_folder",
            root=str(photo_folder),
            validation_fraction=fraction,
        )
    data = f"--data_dir={tmp_path / 'd'}"
    status, text, rows = check("image_folder", data)
    assert (status, rows) == (0, []) and "photos checked" in text
    first, second = sorted((tmp_path / "d").rglob("*-train.array_record*"))
    content = bytearray(first.read_bytes())
    photo = (photo_folder / "birch" / "photo 1.jpg").read_bytes()
    at = content.index(photo) + 100
    content[at : at + 99] = bytes(99)
    first.write_bytes(content)
    second.unlink()
    status, _, rows = check("image_folder", data)
    assert status == 1
    assert {problem for _, problem, _ in rows} == {
        "changed",
        "unreadable",
        "missing",
        "count",
    }
    assert "train/" in next(name for name, problem, _ in rows if problem[0] == "u")


def test_shards_of_the_same_size_that_were_exchanged(check, photo_folder, tmp_path):
    folders = []
    for name in ("a", "b"):
        root = shutil.copytree(photo_folder, tmp_path / name)
        (root / "ash").rename(root / ("oak" if name == "a" else "yew"))
        dataset = datasets.prepare(
            str(tmp_path / "d"), name="image_folder", root=str(root)
        )
        folders.append(dataset.builder.data_path)
    one, two = (next(folder.glob("*-train.*")) for folder in folders)
    assert os.path.getsize(one) == os.path.getsize(two)
    shutil.copyfile(two, one)
    _, _, rows = check("image_folder", f"--data_dir={tmp_path / 'd'}")
    (changed,) = [row for row in rows if row[1] == "changed"]
    assert changed[0].endswith(f"train/{one.name}")
    assert changed[2].endswith("is not as it was written: its SHA-256 differs")


def test_only_files_are_replaced_by_the_output(tokret, photo_folder, tmp_path):
    command = ("data", "check", "image_folder", f"--root={photo_folder}", "--workers=1")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link.csv").symlink_to("pipe")
    (tmp_path / "circle.csv").symlink_to("circle.csv")
    for name in ("pipe", "link.csv", "circle.csv", "none/x.csv", "pipe/x.csv"):
        status, _, err = tokret(*command, f"--output={tmp_path / name}")
        assert status == 2 and err.startswith("error: --output: "), err
        assert (tmp_path / "pipe").is_fifo() and (tmp_path / "link.csv").is_symlink()
    (tmp_path / "good.csv").symlink_to("there.csv")
    status, *_ = tokret(*command, f"--output={tmp_path / 'good.csv'}")
    assert status == 0 and (tmp_path / "good.csv").is_symlink()
    assert (tmp_path / "there.csv").read_text() == "name,problem,detail\n"
    names = {"pipe", "link.csv", "circle.csv", "good.csv", "there.csv"}
    assert {path.name for path in tmp_path.iterdir()} == names


def test_wrong_usage(check, tmp_path):
    for name, arguments, message in (
        (
            "image_folder",
            (f"--data_dir={tmp_path}",),
            "contains no prepared image_folder",
        ),
        ("image_folder", ("--root=/nowhere",), "/nowhere is not a folder"),
        ("gldv2", (f"--manual_dir={tmp_path}",), "lacks train_clean.csv"),
        ("gldv2", ("--root=x",), "--root is not an option"),
        ("roxford5k", (f"--manual_dir={tmp_path}/x",), "not a folder"),
        ("synthetic_landmarks", (f"--data_dir={tmp_path}",), "no prepared synth"),
        ("image_folder", ("--root=x", f"--output={tmp_path}"), "output"),
    ):
        status, text, rows = check(name, *arguments)
        assert status == 2 and message in text and not rows, text


def test_duplicates_are_found_among_many():
    digests = Digests()
    assert digests.duplicates() == []
    rng = np.random.default_rng(0)
    for i in range(500):
        digests.add(f"{i:03d}", rng.bytes(32))
    assert digests.duplicates() == []
    for name in ("a", "b", "000b"):
        digests.add(name, np.random.default_rng(0).bytes(32))
    found = digests.duplicates()
    assert [(f.name, f.detail) for f in found] == [
        (name, "the same bytes as 000") for name in ("000b", "a", "b")
    ]
