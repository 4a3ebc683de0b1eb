"""The public API: the docstrings' examples, and photos of every kind."""

import doctest
import os
import shutil
import subprocess
import sys

import jaxtyping
import numpy as np
import pytest
from PIL import Image

import tokret
from tokret import api
from tokret.data.ground_truth import GroundTruth
from tokret.search.indexing import update_index


@pytest.fixture
def unchecked():
    """Without the checks of types that run in tests alone."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def model(token_checkpoint):
    return tokret.load(token_checkpoint)


def test_the_examples_run(token_checkpoint, load, photos, tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "demo").symlink_to(token_checkpoint)
    (photos / "sea" / "1.jpg").rename(tmp_path / "query.jpg")
    monkeypatch.chdir(tmp_path)
    update_index(photos, tmp_path / "runs" / "index", load)
    found = doctest.testmod(api)
    assert found.attempted >= 12 and not found.failed


def test_photos_of_any_size_are_as_if_alone(model, photos, jpeg, tmp_path):
    path = photos / "sea" / "1.jpg"
    large = tmp_path / "large.jpg"
    large.write_bytes(jpeg(7, (90, 200)))
    array = np.asarray(Image.open(path))
    descriptors = model.embed([path, str(large), array, array[:20]])
    assert descriptors.shape == (4, 8) and descriptors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(descriptors, axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(descriptors[0], descriptors[2])
    for row, photo in enumerate([path, large, array, array[:20]]):
        np.testing.assert_allclose(model.embed([photo])[0], descriptors[row], atol=1e-5)
    maps = model.attention([path, array[:20]])
    assert [each.shape[0] for each in maps] == [2, 2]
    np.testing.assert_allclose(maps[0].sum(axis=0), 1, rtol=1e-4)


@pytest.mark.parametrize(
    ("photos", "message"),
    [
        ([], "photos is empty"),
        ("query.jpg", "photos is a str; give a list"),
        (b"query.jpg", "photos is a bytes; give a list"),
        (None, "photos is a NoneType; give a list"),
        (np.zeros((), np.uint8), "photos is a ndarray; give a list"),
        ([None], r"photos\[0\] is a NoneType; it must be a path or an array"),
        ([""], r"photos\[0\]: is a folder"),
        ([np.zeros((0, 8, 3), np.uint8)], r"photos\[0\] is uint8 \[0, 8, 3\]"),
        (["/nowhere.jpg"], "/nowhere.jpg"),
        ([np.zeros((4, 4), np.uint8)], r"photos\[0\] is uint8 \[4, 4\]"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_wrong_photos_are_named(model, photos, message):
    for method in (model.embed, model.attention):
        with pytest.raises(tokret.UserError, match=message):
            method(photos)


def test_pipes_and_devices_are_refused_at_once(model, tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    for photo in (tmp_path / "pipe.jpg", "/dev/zero", tmp_path):
        with pytest.raises(tokret.UserError, match=f"{photo}: is a .*, where a file"):
            model.embed([photo])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": None}, "path is a NoneType; it must be a path"),
        ({"path": 3}, "path is a int; it must be a path"),
        ({"path": "ftp://b/run"}, "path: .ftp://b/run.: ftp:// cannot be used"),
        ({"longest_side": "a"}, "longest_side is 'a'"),
        ({"scales": 1.0}, "scales is 1.0; it must be a list"),
        ({"scales": []}, r"scales is \[\]"),
        ({"max_pixels": "many"}, "max_pixels is many; it must be in"),
        ({"max_pixels": 0}, "max_pixels is 0; it must be in"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_wrong_arguments_of_load_are_named(token_checkpoint, arguments, message):
    with pytest.raises(tokret.UserError, match=message):
        tokret.load(**({"path": token_checkpoint} | arguments))


@pytest.mark.usefixtures("unchecked")
def test_a_model_and_an_index_are_printed(model, index):
    words = "<tokret.Model: token over tiny, longest side 48, scales 1>"
    assert repr(model) == words
    assert repr(index) == f"<tokret.Index: 9 photos of {index.root}>"
    for path in (None, 7):
        with pytest.raises(tokret.UserError, match="path is a .*; it must be a path"):
            tokret.open_index(path)


@pytest.fixture
def index(load, photos, tmp_path):
    update_index(photos, tmp_path / "index", load)
    return tokret.open_index(tmp_path / "index")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"photo": None}, "photo is a NoneType; it must be a path"),
        ({"photo": np.zeros((8, 8, 3), np.uint8)}, "photo is a ndarray"),
        ({"box": (1, 2)}, r"box=\(1, 2\) must be x0,y0,x1,y1"),
        ({"box": 5}, "box=5 must be x0,y0,x1,y1"),
        ({"box": "1,2,3,4"}, "box=1,2,3,4 must be x0,y0,x1,y1"),
        ({"box": (0, 0, "a", 4)}, r"box=.*'a'.* must be x0,y0,x1,y1"),
        ({"box": (0, 0, 0, 4)}, r"box=\(0, 0, 0, 4\) must have 0 <= x0 < x1"),
        ({"box": (0, 0, 99, 4)}, "box=0,0,99,4 is not inside .* 48 x 40 pixels"),
        (
            {"box": (5, 5, 5.3, 20)},
            "is 48 x 40 pixels and its box 5,5,5.3,20 has 0 x 15; choose a box of",
        ),
        ({"top": 0}, "top is 0; it must be at least 1"),
        ({"top": None}, "top is None; it must be a whole number"),
        ({"photo": []}, "photo is empty; name one or more"),
        ({"unlike": [None]}, "unlike is a NoneType; it must be a path"),
        ({"folders": ["lake"]}, "no photo of the index is in the folder lake"),
        ({"near_duplicates": "skip"}, "near_duplicates is 'skip'; it must be one of"),
        ({"max_pixels": 1000}, r"claims 48 x 40 pixels, more than 1,000 \(max_pixels"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_wrong_arguments_of_a_query_are_named(index, photos, arguments, message):
    with pytest.raises(tokret.UserError, match=message):
        index.query(**({"photo": photos / "sea" / "1.jpg"} | arguments))


@pytest.mark.usefixtures("unchecked")
def test_a_query_of_several_photos_and_filters(index, photos):
    first, second = photos / "sea" / "1.jpg", photos / "sea" / "5.jpg"
    both = index.query([first, second], top=2)
    assert {hit.name for hit in both} == {"sea/1.jpg", "sea/5.jpg"}
    plain = {hit.name: hit.score for hit in index.query(first)}
    found = {hit.name: hit.score for hit in index.query(first, unlike=[second])}
    assert found["sea/5.jpg"] < plain["sea/5.jpg"] and len(plain) == 9
    hits = index.query(first, labels=["sea"], leave_out_query=True)
    assert len(hits) == 3 and {hit.label for hit in hits} == {"sea"}
    hidden = index.query(first, near_duplicates="hide")
    assert hidden[0].name == "sea/1.jpg"
    assert sum(1 + hit.near_duplicates for hit in hidden) == 9


def test_a_head_without_maps_has_no_attention(checkpoint, photos):
    with pytest.raises(tokret.UserError, match="head gem has no attention"):
        tokret.load(checkpoint).attention([photos / "sea" / "1.jpg"])


def test_an_index_lists_its_photos_and_retrieves_them(load, photos, tmp_path):
    (photos / "broken.jpg").write_bytes(b"no photo")
    update_index(photos, tmp_path / "index", load)
    index = tokret.open_index(tmp_path / "index")
    assert index.root == photos and len(index.names) == 9
    for name in index.names[:2]:
        assert index.query(photos / name, top=3).hits[0].name == name
    photos.rename(tmp_path / "moved")
    query = tmp_path / "moved" / index.names[0]
    assert len(index.query(query, top=3).gone) == 3
    moved = tokret.open_index(tmp_path / "index", root=tmp_path / "moved")
    assert not moved.query(query, top=3).gone
    with pytest.raises(tokret.UserError, match="root=.*nowhere is not a folder"):
        tokret.open_index(tmp_path / "index", root=tmp_path / "nowhere")
    shutil.rmtree(tmp_path / "index" / "weights")
    lost = tokret.open_index(tmp_path / "index")
    with pytest.raises(tokret.UserError, match="copy of the weights cannot be used"):
        lost.query(query)


def test_the_metrics():
    eye = np.eye(3, dtype=np.float32)
    lists = tuple(np.array([i], np.int32) for i in range(3))
    none = (np.array([], np.int32),) * 3
    names = ("a", "b", "c")
    truth = GroundTruth("three", names, names, None, lists, none, none)
    assert tokret.evaluate(eye, eye, truth).means["easy"]["mAP"] == 1
    found = tokret.leave_one_out(np.repeat(eye, 2, axis=0), np.repeat(range(3), 2))
    assert found["recall@1"] == 1


def test_names_are_imported_when_they_are_used():
    code = (
        "import sys, tokret; assert 'jax' not in sys.modules;"
        "assert set(tokret.__all__) <= set(dir(tokret));"
        "from tokret import *; assert load and UserError;"
        "assert not hasattr(tokret, 'laod')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
