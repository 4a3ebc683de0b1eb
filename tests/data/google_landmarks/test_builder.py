"""Google Landmarks v2 from the hosts' formats: CSVs, tars, the unpacked tree."""

import csv
import re
import shutil
import tarfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokret.data import datasets
from tokret.data.google_landmarks import photo_locations
from tokret.data.google_landmarks.classes import held_out
from tokret.errors import UserError

# Photos of each landmark in train.csv; those of even place are in the clean subset.
COUNTS = {7: 1, 40: 2, 41: 3, 138982: 12, 203093: 30, 9: 4}
CLEAN = {
    landmark: -(-count // 2) for landmark, count in COUNTS.items() if landmark != 9
}
CLEAN[7] = 1


def photo_ids(landmark, count):
    rng = np.random.default_rng(landmark)
    return [f"{n:016x}" for n in rng.integers(0, 2**64, count, np.uint64).tolist()]


LANDMARKS = {landmark: photo_ids(landmark, n) for landmark, n in COUNTS.items()}
FULL = {photo: landmark for landmark, ids in LANDMARKS.items() for photo in ids}
CLEAN_IDS = {landmark: LANDMARKS[landmark][::2] for landmark in CLEAN}
ALL_CLEAN = {photo: n for n, ids in CLEAN_IDS.items() for photo in ids}


@pytest.fixture(scope="session")
def photos(jpeg):
    return {photo: jpeg(i, (64, 48)) for i, photo in enumerate(FULL)}


@pytest.fixture(scope="session")
def hosts(tmp_path_factory, photos, write_tar):
    """A folder as the hosts' script leaves it: tars with train/, CSVs beside them."""
    root = tmp_path_factory.mktemp("gldv2")
    with (root / "train.csv").open("w", newline="") as file:
        rows = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC)
        rows.writerow(["id", "url", "landmark_id"])
        rows.writerows([p, f"http://x/{p},1.jpg", n] for p, n in FULL.items())
    lines = [f"{n},{' '.join(ids)}" for n, ids in CLEAN_IDS.items()]
    (root / "train_clean.csv").write_text("\n".join(["landmark_id,images", *lines, ""]))
    order = list(photos)
    np.random.default_rng(1).shuffle(order)
    for number in range(3):
        mine = order[number::3]
        files = {f"train/{p[0]}/{p[1]}/{p[2]}/{p}.jpg": photos[p] for p in mine}
        write_tar(root / f"images_{number:03d}.tar", {"train/README": b"-"} | files)
        (root / f"md5.images_{number:03d}.txt").write_text("0  images_000.tar\n")
    return root


@pytest.fixture(scope="session")
def tree(tmp_path_factory, hosts):
    """The same, unpacked below train/, the CSVs in metadata/."""
    root = tmp_path_factory.mktemp("tree")
    for path in sorted(hosts.glob("*.tar")):
        with tarfile.open(path) as tar:
            tar.extractall(root, filter="data")
    (root / "metadata").mkdir()
    for path in hosts.glob("*.csv"):
        shutil.copy(path, root / "metadata")
    return root


@pytest.fixture
def changed(tmp_path, hosts):
    """A copy of the hosts' folder to be spoilt."""
    return shutil.copytree(hosts, tmp_path / "hosts")


def prepare(data_dir, root, **options):
    return datasets.prepare(
        str(data_dir), name="gldv2", manual_dir=str(root), **options
    )


def stems(records):
    return [record["filename"].decode().removesuffix(".jpg") for record in records]


def check(dataset, records, expected, photos):
    """All photos are there once, with their landmarks, as they came, and are split."""
    landmarks = sorted(set(expected.values()))
    assert dataset.classes == len(landmarks)
    everything = [*records["train"], *records["validation"]]
    assert sorted(stems(everything)) == sorted(expected)
    for photo, record in zip(stems(everything), everything, strict=True):
        assert landmarks[record["label"]] == expected[photo]
        assert record["image"] == photos[photo]
    held = [record["label"] for record in records["validation"]]
    for label, landmark in enumerate(landmarks):
        count = list(expected.values()).count(landmark)
        wanted = max(1, (2 * count + 5) // 10) if count > 1 else 0
        assert held.count(label) == wanted


def test_the_clean_subset_from_tars(tmp_path, hosts, photos, read):
    dataset, records = read(tmp_path, "gldv2", manual_dir=str(hosts))
    check(dataset, records, ALL_CLEAN, photos)
    assert dataset.ground_truth is None
    names = dataset.builder.info.features["label"].names
    assert names == ["7", "40", "41", "138982", "203093"]
    # Each tar is read from its beginning to its end.
    places = {}
    for path in sorted(hosts.glob("*.tar")):
        with tarfile.open(path) as tar:
            for i, member in enumerate(tar):
                places[member.name[-20:-4]] = (path.name, i)
    for split in records.values():
        order = [places[photo] for photo in stems(split)]
        assert order == sorted(order)


def test_the_whole_from_tars_and_from_the_tree(tmp_path, hosts, tree, photos, read):
    both = []
    for i, root in enumerate((hosts, tree)):
        dataset, records = read(
            tmp_path / str(i), "gldv2", manual_dir=str(root), subset="full"
        )
        check(dataset, records, FULL, photos)
        both.append({split: set(stems(found)) for split, found in records.items()})
    assert both[0] == both[1]


def test_what_overlaps_is_skipped(tmp_path, hosts, photos, read):
    photo = CLEAN_IDS[138982][2]
    listing = tmp_path / "overlap.txt"
    listing.write_bytes(f"\ufeffid\r\n203093\r\n{photo}\r\n\r\n41,Louvre\r\n".encode())
    dataset, records = read(
        tmp_path,
        "gldv2",
        manual_dir=str(hosts),
        subset="no_overlap",
        exclude_ids=str(listing),
    )
    expected = {
        p: n for p, n in ALL_CLEAN.items() if n not in (203093, 41) and p != photo
    }
    check(dataset, records, expected, photos)
    for bad, message in (
        ("203093\n5\n", "line 2: landmark 5 is not"),
        ("0123456789abcdef\n", "line 1: photo 0123456789abcdef is not"),
        ("7\nparis\n", "line 2: .*'paris', which is no number"),
        ("\n".join(map(str, CLEAN)), "excludes every photo"),
    ):
        listing.write_text(bad)
        with pytest.raises(UserError, match=message):
            prepare(tmp_path, hosts, subset="no_overlap", exclude_ids=str(listing))


def test_the_split_and_the_labels_are_written_and_can_be_given(
    tmp_path, hosts, tree, read
):
    dataset, records = read(tmp_path / "a", "gldv2", manual_dir=str(hosts))
    folder = dataset.builder.data_path
    with (folder / "split.csv").open() as file:
        split = {row["id"]: row["split"] for row in csv.DictReader(file)}
    with (folder / "labels.csv").open() as file:
        labels = {
            int(row["label"]): int(row["landmark_id"]) for row in csv.DictReader(file)
        }
    assert split == {
        photo: name for name, found in records.items() for photo in stems(found)
    }
    assert labels == dict(enumerate(sorted(CLEAN)))
    # Others: every photo of landmark 41 held out, labels in reverse.
    given = {p: "validation" if n == 41 else "train" for p, n in ALL_CLEAN.items()}
    mine = tmp_path / "mine.csv"
    mine.write_text("\r\n".join(["split,id", *(f"{s},{p}" for p, s in given.items())]))
    reverse = tmp_path / "reverse.csv"
    rows = [f"{i},{n}" for i, n in enumerate([5, *sorted(CLEAN, reverse=True)])]
    reverse.write_text("\n".join(["label,landmark_id", *rows]))
    dataset, records = read(
        tmp_path / "b",
        "gldv2",
        manual_dir=str(tree),
        split=str(mine),
        labels=str(reverse),
    )
    assert dataset.classes == 6
    assert sorted(stems(records["validation"])) == sorted(CLEAN_IDS[41])
    for record in records["train"]:
        landmark = ALL_CLEAN[stems([record])[0]]
        assert dataset.builder.info.features["label"].names[record["label"]] == str(
            landmark
        )


@pytest.mark.parametrize(
    ("field", "text", "message"),
    [
        ("split", "id,split\n0123456789abcdef,train\n", "line 2: photo .* is not in"),
        ("split", "id,split\n{0},train\n{0},train\n", "line 3: photo {0} is in line 2"),
        ("split", "id,split\n{0},test\n", "line 2: 'test' is neither train nor"),
        ("split", "id,split\n{0}.jpg,train\n", "line 2: .* is no photo's id"),
        ("split", "id,split\n{0},train\n", "lacks 24 photos"),
        ("split", "id,split\n", "names no photo"),
        ("labels", "label,landmark_id\n0,7\n0,40\n", "line 3: repeats"),
        ("labels", "label,landmark_id\n0,7\n1,7\n", "line 3: repeats"),
        ("labels", "label,landmark_id\n0,7\n2,40\n", "not the numbers from 0"),
        ("labels", "label,landmark_id\n", "not the numbers from 0"),
        ("labels", "label,landmark_id\n0,x\n", "line 2: landmark_id is 'x'"),
        ("labels", "label,landmark_id\n0,7\n", "no label for 4 landmarks: 40, 41"),
    ],
)
def test_mistakes_in_given_files_are_named(field, text, message, tmp_path, hosts):
    photo = CLEAN_IDS[7][0]
    path = tmp_path / f"{field}.csv"
    path.write_text(text.format(photo))
    with pytest.raises(UserError, match=rf"{field}\.csv.*{message.format(photo)}"):
        prepare(tmp_path, hosts, **{field: str(path)})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("landmark_id,images", "landmark,images", "no column 'landmark_id'"),
        ("7,", "seven,", "line 2: landmark_id is 'seven', which is no number"),
        ("40,", "7,", "line 3: landmark 7 is in line 2"),
        (CLEAN_IDS[40][0], CLEAN_IDS[7][0], "line 3: photo .* is in line 2 too"),
        (CLEAN_IDS[41][1], CLEAN_IDS[41][0], "line 4: photo .* is in line 4 too"),
        (CLEAN_IDS[40][0], "ABCDEF0123456789", "line 3: .* is no photo's id"),
        (CLEAN_IDS[40][0], "../../etc/passwd", "line 3: .* is no photo's id"),
    ],
)
def test_mistakes_in_the_list_are_named(old, new, message, tmp_path, changed):
    path = changed / "train_clean.csv"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=rf"train_clean\.csv.*{message}"):
        prepare(tmp_path, changed)


def test_mistakes_in_the_full_list_are_named(tmp_path, changed):
    path = changed / "train.csv"
    lines = path.read_text().splitlines()
    for line, message in (
        (lines[1], "line 3: photo .* is in line 2 too"),
        (lines[2].rpartition(",")[0], "line 3: has 2 fields"),
        (lines[2].replace(lines[2].rpartition(",")[2], "-3"), "line 3: .*'-3'"),
    ):
        path.write_text("\n".join([*lines[:2], line, *lines[3:]]))
        with pytest.raises(UserError, match=rf"train\.csv, {message}"):
            prepare(tmp_path, changed, subset="full")


def test_lists_with_a_mark_and_other_line_ends(tmp_path, changed, photos, read):
    for name in ("train.csv", "train_clean.csv"):
        text = (changed / name).read_text().replace("\n", "\r\n")
        (changed / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
    dataset, records = read(tmp_path / "c", "gldv2", manual_dir=str(changed))
    check(dataset, records, ALL_CLEAN, photos)
    dataset, records = read(
        tmp_path / "c", "gldv2", manual_dir=str(changed), subset="full"
    )
    check(dataset, records, FULL, photos)


def without(root, lost, write_tar, photos):
    """Removes photos from the tars."""
    for path in sorted(root.glob("*.tar")):
        with tarfile.open(path) as tar:
            kept = [m.name for m in tar if m.name[-20:-4] not in lost]
        write_tar(path, {n: photos.get(n[-20:-4], b"-") for n in kept})


def test_missing_photos_are_counted_and_named(
    tmp_path, changed, photos, read, write_tar, capsys
):
    lost = sorted(CLEAN_IDS[203093])[:11]
    without(changed, lost, write_tar, photos)
    with pytest.raises(UserError) as caught:
        prepare(tmp_path, changed)
    words = str(caught.value)
    assert "11 of 25 photos are missing" in words and "and 8 more" in words
    assert all(f"{photo}.jpg (missing)" in words for photo in lost[:3])
    with open(re.search(r"(\S+\.csv) lists all", words)[1]) as file:
        assert [row["photo"] for row in csv.DictReader(file)] == [
            f"{photo}.jpg" for photo in lost
        ]
    capsys.readouterr()
    dataset, records = read(tmp_path, "gldv2", manual_dir=str(changed), skip_bad=True)
    err = capsys.readouterr().err
    assert "warning: gldv2: 11 photos skipped" in err
    assert sorted(stems([*records["train"], *records["validation"]])) == sorted(
        set(ALL_CLEAN) - set(lost)
    )
    assert dataset.classes == 5
    with (dataset.builder.data_path / "problems.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 11


def test_broken_photos_are_all_named_at_once(
    tmp_path, changed, photos, read, write_tar
):
    bad = sorted(ALL_CLEAN)[:4]
    spoilt = dict(
        zip(
            bad,
            (b"", b"<html>404</html>", photos[bad[2]][:-50], bytes(5000)),
            strict=True,
        )
    )
    without(changed, (), write_tar, photos | spoilt)
    with pytest.raises(UserError) as caught:
        prepare(tmp_path, changed)
    words = str(caught.value)
    assert "4 of 25 photos cannot be used" in words
    problems = ("empty", "a web page", "cannot be decoded", "not a photo")
    named = [f"{p}.jpg ({w}" in words for p, w in zip(bad, problems, strict=True)]
    assert sum(named) == 3 and "and 1 more" in words
    dataset, records = read(tmp_path, "gldv2", manual_dir=str(changed), skip_bad=True)
    found = stems([*records["train"], *records["validation"]])
    assert sorted(found) == sorted(set(ALL_CLEAN) - set(bad))
    counts = {n: s.num_examples for n, s in dataset.builder.info.splits.items()}
    assert counts == {n: len(r) for n, r in records.items()}


def test_photos_are_shrunk_once(tmp_path, hosts, photos, read):
    dataset, records = read(
        tmp_path, "gldv2", manual_dir=str(hosts), resize=32, quality=80
    )
    name = dataset.builder.builder_config.name
    assert name.startswith("clean-32px-q80-")
    assert "shorter side at most 32 px" in dataset.builder.builder_config.description
    for record in records["train"]:
        assert len(record["image"]) < len(photos[stems([record])[0]])


def test_tars_are_looked_through_once(tmp_path, hosts, monkeypatch):
    prepare(tmp_path, hosts)

    def refuse(path):
        raise AssertionError(f"{path} is looked through again")

    monkeypatch.setattr(photo_locations, "_read_index", refuse)
    prepare(tmp_path, hosts, subset="full")
    cached = sorted((tmp_path / "gldv2" / "index").iterdir())
    assert len(cached) == 3
    monkeypatch.undo()
    cached[1].write_bytes(b"of a broken disk")
    prepare(tmp_path, hosts, resize=32)


def test_another_state_of_the_sources_is_another_dataset(tmp_path, changed, capsys):
    one = prepare(tmp_path, changed).builder.data_path
    capsys.readouterr()
    assert prepare(tmp_path, changed).builder.data_path == one
    assert capsys.readouterr().err == ""
    text = (changed / "train_clean.csv").read_text()
    (changed / "train_clean.csv").write_text(text.replace("40,", "39,"))
    two = prepare(tmp_path, changed).builder.data_path
    assert two != one
    # Of two, the one that is meant must be named; of one, the sources may be gone.
    with pytest.raises(UserError, match="contains 2 that match"):
        prepare(tmp_path, "")
    shutil.rmtree(one.parent)
    shutil.rmtree(changed)
    assert prepare(tmp_path, "").builder.data_path == two
    with pytest.raises(UserError, match="no prepared gldv2 full-original"):
        prepare(tmp_path, "", subset="full")


def test_folders_that_cannot_be(tmp_path, hosts, tree):
    empty = tmp_path / "empty"
    empty.mkdir()
    for root, options, message in (
        (empty, {}, "lacks train_clean.csv"),
        (empty, {"subset": "full"}, "lacks train.csv"),
        (tree / "metadata", {}, "contains no photos of Google Landmarks v2"),
        (hosts, {"subset": "cleanest"}, "must be one of: clean, no_overlap, full"),
        (hosts, {"subset": "no_overlap"}, "exclude_ids is a file of ids"),
        (hosts, {"exclude_ids": "x.txt"}, "and no other"),
        (hosts, {"split": "/none.csv"}, "split: /none.csv is not a file"),
        (hosts, {"resize": -1}, "resize"),
        (tmp_path / "none", {}, "lacks train_clean.csv"),
    ):
        with pytest.raises(UserError, match=message):
            prepare(tmp_path / "d", root, **options)


def test_a_photo_in_two_tars_is_an_error(tmp_path, changed):
    shutil.copy(changed / "images_000.tar", changed / "images_499.tar")
    with pytest.raises(UserError, match=r"is in .*images_000\.tar and again in"):
        prepare(tmp_path, changed)


def test_a_tar_cut_short_is_named(tmp_path, changed):
    path = changed / "images_001.tar"
    path.write_bytes(path.read_bytes()[:-11_000])
    with pytest.raises(UserError, match=r"images_001\.tar is truncated"):
        prepare(tmp_path, changed)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(0, 2**63))
def test_held_out_photos(labels, seed):
    rng = np.random.default_rng(seed)
    ids = np.unique(rng.integers(0, 2**64, len(labels), np.uint64))
    labels = np.array(labels[: len(ids)])
    chosen = held_out(ids, labels)
    for label in np.unique(labels):
        count, held = np.sum(labels == label), np.sum(chosen[labels == label])
        assert held == (0 if count == 1 else max(1, (2 * count + 5) // 10))
    order = rng.permutation(len(ids))
    np.testing.assert_array_equal(held_out(ids[order], labels[order]), chosen[order])


def test_the_choice_of_held_out_photos_never_changes():
    ids = np.arange(20, dtype=np.uint64)
    chosen = held_out(ids, np.repeat([0, 1], 10))
    assert np.flatnonzero(chosen).tolist() == [0, 7, 10, 15]
