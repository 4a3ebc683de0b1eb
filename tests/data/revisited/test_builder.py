"""The four benchmarks: the real ground truth with stand-ins of its photos."""

import json
import pickle
import re
import shutil

import numpy as np
import pytest

from tokret.data import datasets
from tokret.data.ground_truth import from_revisited, read_ground_truth
from tokret.data.revisited.builder import OXFORD_LANDMARKS, PARIS_LANDMARKS
from tokret.data.revisited.photo_sources import PARIS
from tokret.data.revisited.splits import without
from tokret.data.revisited.text_ground_truth import query_names, to_revisited
from tokret.errors import UserError
from tokret.retrieval import metrics

QUERIES = ["paris_defense_000605", "paris_eiffel_000128"]
IMAGES = [f"paris_general_{i:06d}" for i in (3, 1, 2)] + ["paris_louvre_000007"]
GND = [
    {"bbx": [1.0, 2.0, 30.5, 20.0], "easy": [0], "hard": [3], "junk": [1]},
    {"bbx": [0.0, 0.0, 9.0, 9.0], "easy": [2, 1], "hard": [], "junk": []},
]
TRUTH = {"imlist": IMAGES, "qimlist": QUERIES, "gnd": GND}


def prepare(data_dir, name, root, **options):
    return datasets.prepare(str(data_dir), name=name, manual_dir=str(root), **options)


@pytest.fixture(scope="module")
def stand_in(jpeg):
    """One photo's bytes for thousands of names; the name is in it."""
    data = jpeg(0, (16, 8))
    return lambda name: data + name.encode()


@pytest.fixture
def paris(tmp_path, jpeg, write_tar):
    """Revisited Paris of four photos and two queries, in folders in two archives."""
    root = tmp_path / "paris"
    root.mkdir()
    photos = {name: jpeg(i) for i, name in enumerate([*IMAGES, *QUERIES])}
    files = {f"paris/{name.split('_')[1]}/{name}.jpg": d for name, d in photos.items()}
    one = {name: data for name, data in files.items() if "general" in name}
    two = {name: data for name, data in files.items() if "general" not in name}
    # The hosts list this one as broken; it is a web page.
    two["paris/louvre/paris_louvre_000136.jpg"] = b"<html>302 Found</html>"
    write_tar(root / "paris_1.tgz", one, "w:gz")
    write_tar(root / "paris_2.tgz", two, "w:gz")
    (root / "gnd_rparis6k.pkl").write_bytes(pickle.dumps(TRUTH, protocol=2))
    return root, photos


def check(dataset, records, photos, names):
    assert names(records["query"]) == [f"{name}.jpg" for name in QUERIES]
    assert names(records["database"]) == [f"{name}.jpg" for name in IMAGES]
    for record in [*records["query"], *records["database"]]:
        assert record["image"] == photos[record["filename"].decode()[:-4]]
    assert dataset.ground_truth == TRUTH
    truth = from_revisited(dataset.ground_truth, "rparis6k")
    np.testing.assert_array_equal(truth.boxes[0], GND[0]["bbx"])


def test_archives_and_a_pickle(tmp_path, paris, read, names):
    root, photos = paris
    dataset, records = read(tmp_path / "d", "rparis6k", manual_dir=str(root))
    check(dataset, records, photos, names)
    assert not list((tmp_path / "d").rglob("*.plain"))
    for call in (dataset.identity, lambda: dataset.classes):
        with pytest.raises(UserError, match="have no labels"):
            call()


@pytest.mark.parametrize("layout", ["jpg/{}", "{}", "paris/{1}/{0}", "a/b c/é/{}"])
def test_unpacked_photos_however_nested_and_json(
    layout, tmp_path, paris, read, names, write_tar
):
    root, photos = paris
    for path in root.iterdir():
        path.unlink()
    (root / "gnd_rparis6k.json").write_text(json.dumps(TRUTH))
    for name, data in photos.items():
        path = root / layout.format(f"{name}.jpg", name.split("_")[1])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (root / "back").symlink_to(root)  # a loop
    (root / "._paris_general_000001.jpg").write_bytes(b"of a Mac")
    (root / "all_souls_000013.jpg").write_bytes(b"of another benchmark")
    dataset, records = read(tmp_path / "d", "rparis6k", manual_dir=str(root))
    check(dataset, records, photos, names)


def test_the_blurred_release_has_the_same_names(tmp_path, paris, read, names):
    root, photos = paris
    for number in (1, 2):
        path = root / f"paris_{number}.tgz"
        shutil.copy(path, root / f"paris_{number}-v1.tgz")
    with pytest.raises(
        UserError, match="contains both of Paris; choose original or blurred"
    ):
        prepare(tmp_path, "rparis6k", root)
    with pytest.raises(UserError, match="release is 'sharp'"):
        prepare(tmp_path, "rparis6k", root, release="sharp")
    for release in ("original", "blurred"):
        options = {"manual_dir": str(root), "release": release}
        dataset, records = read(tmp_path / "d", "rparis6k", **options)
        check(dataset, records, photos, names)
        assert dataset.builder.builder_config.name.startswith(f"{release}-")
    again = prepare(tmp_path / "d", "rparis6k", "", release="blurred")
    assert again.builder.data_path == dataset.builder.data_path


def test_what_is_not_there_is_named(tmp_path, paris):
    root, _ = paris
    with pytest.raises(UserError, match=r"neither oxbuild_images\.tgz and oxbuild"):
        prepare(tmp_path, "roxford5k", root)
    (root / "gnd_rparis6k.pkl").rename(root / "gnd.pkl")
    with pytest.raises(UserError, match=r"gnd_rparis6k\.pkl nor gnd_rparis6k\.json"):
        prepare(tmp_path, "rparis6k", root)
    with pytest.raises(UserError, match=r"defense_1_query\.txt .* paris_120310\.tgz"):
        prepare(tmp_path, "paris6k", root)
    (root / "paris_1.tgz").unlink()
    with pytest.raises(UserError, match=r"lacks paris_1\.tgz"):
        prepare(tmp_path, "rparis6k", root)
    with pytest.raises(UserError, match="is not a folder"):
        prepare(tmp_path, "rparis6k", root / "none")
    with pytest.raises(UserError, match="no prepared rparis6k; set it to the folder"):
        prepare(tmp_path / "d", "rparis6k", "")


def test_a_name_for_two_photos_is_an_error(tmp_path, paris):
    root, _ = paris
    shutil.copy(root / "paris_1.tgz", root / "paris_2.tgz")
    with pytest.raises(UserError, match=r"two photos paris_general_\d+\.jpg"):
        prepare(tmp_path, "rparis6k", root)


def test_a_malicious_pickle_is_refused(tmp_path, paris):
    root, _ = paris
    (root / "gnd_rparis6k.pkl").write_bytes(b"cos\nsystem\n(S'touch x'\ntR.")
    with pytest.raises(UserError, match="contains the global os.system"):
        prepare(tmp_path, "rparis6k", root)


def test_missing_and_broken_photos_leave_a_smaller_benchmark(
    tmp_path, paris, read, names, write_tar, capsys
):
    root, photos = paris
    files = {f"jpg/{name}.jpg": data for name, data in photos.items()}
    del files[f"jpg/{IMAGES[1]}.jpg"], files[f"jpg/{QUERIES[0]}.jpg"]
    write_tar(root / "paris_1.tgz", files, "w:gz")
    write_tar(root / "paris_2.tgz", {"x": b""}, "w:gz")
    with pytest.raises(UserError, match="2 of 6 photos are missing: paris_defense"):
        prepare(tmp_path / "d", "rparis6k", root)
    files[f"jpg/{IMAGES[0]}.jpg"] = b""
    write_tar(root / "paris_1.tgz", files, "w:gz")
    options = {"manual_dir": str(root), "skip_bad": True}
    dataset, records = read(tmp_path / "d", "rparis6k", **options)
    assert "3 photos skipped" in capsys.readouterr().err
    assert names(records["query"]) == [f"{QUERIES[1]}.jpg"]
    assert names(records["database"]) == [f"{name}.jpg" for name in IMAGES[2:]]
    left = {"bbx": [0.0, 0.0, 9.0, 9.0], "easy": [0], "hard": [], "junk": []}
    assert dataset.ground_truth == {
        "imlist": IMAGES[2:],
        "qimlist": QUERIES[1:],
        "gnd": [left],
    }


def test_leaving_nothing_out_changes_nothing():
    assert without(TRUTH, (), ()) == TRUTH


@pytest.mark.parametrize(("name", "images"), [("roxford5k", 4993), ("rparis6k", 6322)])
def test_the_real_ground_truth(
    name, images, shared, tmp_path, stand_in, write_tar, read, names
):
    gnd = shared / "revisitop" / f"gnd_{name}.pkl"
    truth = read_ground_truth(gnd)
    files = {
        f"jpg/{photo}.jpg": stand_in(photo)
        for photo in sorted({*truth.images, *truth.queries})
    }
    assert len(files) == images + 70
    if name == "roxford5k":
        write_tar(tmp_path / "oxbuild_images-v1.tgz", files, "w:gz")
    else:
        assert not {f"jpg/{b}.jpg" for b in PARIS.broken} & set(files)
        parts = [dict(list(files.items())[i::2]) for i in range(2)]
        write_tar(tmp_path / "paris_1.tgz", parts[0], "w:gz")
        write_tar(tmp_path / "paris_2.tgz", parts[1], "w:gz")
    shutil.copy(gnd, tmp_path)
    dataset, records = read(tmp_path / "d", name, manual_dir=str(tmp_path))
    assert names(records["query"]) == [f"{query}.jpg" for query in truth.queries]
    assert names(records["database"]) == [f"{image}.jpg" for image in truth.images]
    assert len(records["query"]) == 70 and len(records["database"]) == images
    for record in records["database"]:
        assert record["image"] == stand_in(record["filename"].decode()[:-4])
    stored = from_revisited(dataset.ground_truth, name)
    assert stored.images == truth.images and stored.queries == truth.queries
    np.testing.assert_array_equal(stored.boxes, truth.boxes)
    for key in ("easy", "hard", "junk"):
        for mine, theirs in zip(getattr(stored, key), getattr(truth, key), strict=True):
            np.testing.assert_array_equal(mine, theirs)


@pytest.fixture(scope="module")
def oxford_names(shared):
    """The names of all 5,063 photos of Oxford."""
    found = set()
    for part in ("gallery", "query"):
        text = (shared / "revisitop" / f"oxford5k_test_{part}.txt").read_text()
        found |= {line.split(",")[0][4:-4] for line in text.split()}
    return sorted(found)


def test_the_real_text_files(
    shared, tmp_path, stand_in, oxford_names, write_tar, read, names
):
    files = {f"{name}.jpg": stand_in(name) for name in oxford_names}
    write_tar(tmp_path / "oxbuild_images.tgz", files, "w:gz")
    shutil.copytree(shared / "oxford5k_gt", tmp_path / "gt")
    dataset, records = read(tmp_path / "d", "oxford5k", manual_dir=str(tmp_path))
    assert names(records["database"]) == [f"{name}.jpg" for name in oxford_names]
    assert len(records["database"]) == 5063 and len(records["query"]) == 55
    truth = from_revisited(dataset.ground_truth, "oxford5k")
    assert truth.queries[0] == "all_souls_000013"
    np.testing.assert_array_equal(truth.boxes[0], [136.5, 34.1, 648.5, 955.7])
    assert [sum(map(len, x)) for x in (truth.easy, truth.hard, truth.junk)] == [
        *(1360, 1480, 1495)
    ]
    assert records["query"][0]["image"] == stand_in("all_souls_000013")
    check_old_protocol(shared / "oxford5k_gt", truth)


def old_average_precision(folder, query, ranked):
    """The protocol as it was published in 2007, from the files, step by step."""

    def listed(kind):
        return set((folder / f"{query}_{kind}.txt").read_text().split())

    positive, ignored = listed("good") | listed("ok"), listed("junk")
    found = place = 0
    before, total = 1.0, 0.0
    for name in ranked:
        if name in ignored:
            continue
        found += name in positive
        precision = found / (place + 1)
        total += (name in positive) / len(positive) * (before + precision) / 2
        before = precision
        place += 1
    return total


def check_old_protocol(folder, truth):
    """Medium of the Revisited form is the protocol of 2007."""
    rng = np.random.default_rng(0)
    database = rng.normal(size=(len(truth.images), 8)).astype(np.float32)
    queries = rng.normal(size=(len(truth.queries), 8)).astype(np.float32)
    found = metrics.evaluate(queries, database, truth).average_precision["medium"]
    for i in range(0, 55, 6):
        order = np.argsort(-(database @ queries[i]), kind="stable")
        query = query_names(OXFORD_LANDMARKS)[i]
        ranked = [truth.images[j] for j in order]
        expected = old_average_precision(folder, query, ranked)
        assert abs(found[i] - expected) < 1e-6


def test_a_photo_too_few_is_noticed_without_a_list(
    shared, tmp_path, jpeg, oxford_names, read
):
    (tmp_path / "jpg").mkdir()
    named = set(re.findall(r"\w+_\d{6}", texts_of(shared)))
    for name in oxford_names:
        if name in named:
            (tmp_path / "jpg" / f"{name}.jpg").write_bytes(jpeg(0, (8, 8)))
    shutil.copytree(shared / "oxford5k_gt", tmp_path / "gt")
    count = len({name.removeprefix("oxc1_") for name in named} & set(oxford_names))
    with pytest.raises(UserError, match=rf"contains {count} photos, and 5,063 were"):
        prepare(tmp_path / "d", "oxford5k", tmp_path)
    options = {"manual_dir": str(tmp_path), "skip_bad": True}
    _, records = read(tmp_path / "d", "oxford5k", **options)
    assert len(records["database"]) == count
    (tmp_path / "jpg" / "all_souls_000091.jpg").unlink()
    with pytest.raises(UserError, match=r"missing: all_souls_000091\.jpg"):
        prepare(tmp_path / "d", "oxford5k", tmp_path)
    (tmp_path / "gt" / "keble_3_junk.txt").unlink()
    with pytest.raises(UserError, match=r"lacks 1 .* the first is keble_3_junk\.txt"):
        prepare(tmp_path / "d", "oxford5k", tmp_path)


def texts_of(shared):
    folder = shared / "oxford5k_gt"
    return " ".join(path.read_text() for path in sorted(folder.glob("*_*.txt")))


def test_paris_of_2008_leaves_out_the_broken_and_reads_the_archive_of_texts(
    tmp_path, paris, read, names, write_tar
):
    root, photos = paris
    texts = {}
    for query in query_names(PARIS_LANDMARKS):
        texts[f"{query}_query.txt"] = f"{QUERIES[0]} 1 2 30.5 20\r\n"
        texts[f"{query}_good.txt"] = f"{QUERIES[0]}\n{IMAGES[0]}\n{IMAGES[0]}\n"
        texts[f"{query}_ok.txt"] = f"{IMAGES[1]}\n"
        texts[f"{query}_junk.txt"] = ""
    write_tar(
        root / "paris_120310.tgz",
        {f"./{name}": text.encode() for name, text in texts.items()},
        "w:gz",
    )
    with pytest.raises(UserError, match="contains 6 photos, and 6,392 were published"):
        prepare(tmp_path / "d", "paris6k", root)
    options = {"manual_dir": str(root), "skip_bad": True}
    dataset, records = read(tmp_path / "d", "paris6k", **options)
    assert names(records["database"]) == sorted(f"{name}.jpg" for name in photos)
    assert names(records["query"]) == [f"{QUERIES[0]}.jpg"] * 55
    truth = from_revisited(dataset.ground_truth, "paris6k")
    order = sorted(photos)
    assert truth.easy[7].tolist() == [order.index(QUERIES[0]), order.index(IMAGES[0])]
    assert truth.hard[7].tolist() == [order.index(IMAGES[1])]
    assert len(PARIS.broken) == 20


def test_text_files_of_another_form_are_named():
    good = {
        f"{query}_{kind}.txt": "a_000001\n"
        for query in query_names(["x"])
        for kind in ("good", "ok", "junk")
    }
    good |= {
        f"{query}_query.txt": "oxc1_a_000001 1 2 3 4\n" for query in query_names(["x"])
    }
    assert to_revisited(good, ["x"], [])["qimlist"] == ["a_000001"] * 5
    for name, text, message in (
        ("x_3_query.txt", "", "x_3_query.txt must be one line"),
        ("x_3_query.txt", "a 1 2 3", "x_3_query.txt must be one line"),
        ("x_3_query.txt", "a 1 2 3 4\nb 1 2 3 4", "x_3_query.txt must be one line"),
        ("x_3_query.txt", "../a 1 2 3 4", "x_3_query.txt must be one line"),
        ("x_2_good.txt", "a_1\n<html>\n", "x_2_good.txt, line 2: '<html>' is no"),
        ("x_2_junk.txt", "../../etc/passwd", "x_2_junk.txt, line 1"),
    ):
        with pytest.raises(UserError, match=message):
            to_revisited(good | {name: text}, ["x"], [])
    del good["x_5_ok.txt"]
    with pytest.raises(UserError, match=r"lacks x_5_ok\.txt"):
        to_revisited(good, ["x"], [])
