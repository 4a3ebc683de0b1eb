import copy
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokret.data import ground_truth
from tokret.errors import UserError

REVISITED = Path(__file__).parents[2].parent / "shared" / "revisitop"
GOOD = {
    "imlist": ["a", "b/c", "d", "e"],
    "qimlist": ["q", "r"],
    "gnd": [
        {"bbx": [1, 2.5, 30, 40], "easy": [0], "hard": [3], "junk": [1]},
        {"bbx": [0, 0, 5, 5], "easy": [], "hard": [], "junk": []},
    ],
}


def changed(path, value):
    """GOOD with one place in it set to something else, or taken out."""
    truth = copy.deepcopy(GOOD)
    inner = truth
    for step in path[:-1]:
        inner = inner[step]
    if value is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return truth


@pytest.mark.parametrize("suffix", [".pkl", ".json"])
def test_a_good_file_is_read(tmp_path, suffix):
    path = tmp_path / f"gnd_small{suffix}"
    text = json.dumps(GOOD).encode() if suffix == ".json" else pickle.dumps(GOOD)
    path.write_bytes(text)
    truth = ground_truth.read_ground_truth(path)
    assert (truth.name, truth.images, truth.queries) == (
        "small",
        ("a", "b/c", "d", "e"),
        ("q", "r"),
    )
    assert truth.boxes.tolist() == [[1, 2.5, 30, 40], [0, 0, 5, 5]]
    assert [len(items) for items in truth.easy] == [1, 0]
    assert (truth.hard[0].tolist(), truth.junk[0].tolist()) == ([3], [1])
    assert truth.easy[1].dtype == np.int32


@pytest.mark.parametrize("dtype", [np.str_, object, "S"])
def test_names_may_be_arrays_of_strings(tmp_path, dtype):
    truth = changed(("imlist",), np.array(["a", "b/c", "d", "e"], dtype))
    truth["qimlist"] = [np.str_("q"), np.str_("r")]
    truth["gnd"] = np.array(truth["gnd"], object)
    path = tmp_path / "gnd_small.pkl"
    path.write_bytes(pickle.dumps(truth))
    read = ground_truth.read_ground_truth(path)
    assert read.images == ("a", "b/c", "d", "e") and read.queries == ("q", "r")


def test_names_of_bytes_are_no_text():
    with pytest.raises(UserError, match=r"imlist\[0\]: Expected `str`, got `bytes`"):
        ground_truth.from_revisited(changed(("imlist", 0), b"a"), "small")


def test_arrays_serve_as_lists_and_boxes_may_be_absent():
    truth = changed(("gnd", 0, "easy"), np.array([0, 2]))
    for entry in truth["gnd"]:
        del entry["bbx"]
    read = ground_truth.from_revisited(truth, "small")
    assert read.boxes is None
    assert read.easy[0].tolist() == [0, 2]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("imlist",), ..., "missing required field `imlist`"),
        (("gnd",), ..., "missing required field `gnd`"),
        (("gnd", 0, "junk"), ..., r"gnd\[0\]: .* missing required field `junk`"),
        (("gnd", 0, "hard"), ..., r"gnd\[0\]: .* missing required field `hard`"),
        (("imlist",), "abcd", "imlist: Expected `array`, got `str`"),
        (("imlist",), [], "imlist: Expected `array` of length >= 1"),
        (("imlist", 1), "a", "names an image twice"),
        (("imlist", 1), 7, r"imlist\[1\]: Expected `str`, got `int`"),
        (("imlist", 1), "x\0y", r"imlist\[1\]"),
        (("imlist", 1), "../x", r"imlist\[1\]: leads out"),
        (("qimlist", 0), "/etc/passwd", r"qimlist\[0\]: leads out"),
        (("qimlist",), ["q"], "gnd has 2 entries and qimlist 1"),
        (("gnd",), {"0": {}}, "gnd: Expected `array`, got `object`"),
        (("gnd", 1), [], r"gnd\[1\]: Expected `object`, got `array`"),
        (("gnd", 0, "easy"), "0", r"gnd\[0\]\.easy: Expected `array"),
        (("gnd", 0, "easy"), [-1], r"easy\[0\]: Expected `int` >= 0"),
        (("gnd", 0, "easy"), [2, 4], r"easy\[1\]: is no index .* from 0 to 3"),
        (("gnd", 0, "easy"), [10**5000], r"easy\[0\]"),
        (("gnd", 0, "easy"), [True], r"easy\[0\]: Expected `int`, got `bool`"),
        (("gnd", 0, "easy"), [2.0], r"easy\[0\]: Expected `int`, got `float`"),
        (("gnd", 0, "easy"), [2, 2], r"gnd\[0\]: image 2 is twice"),
        (("gnd", 0, "easy"), [3], r"gnd\[0\]: image 3 is twice"),
        (("gnd", 0, "bbx"), ..., r"gnd\[0\]: no field 'bbx'"),
        (("gnd", 0, "bbx"), None, r"gnd\[0\]: no field 'bbx'"),
        (("gnd", 0, "bbx"), [1, 2, 3], r"gnd\[0\]\.bbx: Expected `array` of length 4"),
        (("gnd", 0, "bbx"), [1, 2, 3, "4"], r"gnd\[0\]\.bbx\[3\]: Expected `float`"),
        (("gnd", 0, "bbx"), [1, 2, 3, float("nan")], r"gnd\[0\]\.bbx: must be fin"),
        (("gnd", 0, "bbx"), [1, 2, 3, float("inf")], r"gnd\[0\]\.bbx: must be fin"),
        (("gnd", 0, "bbx"), [1, 2, 3, 10**400], r"gnd\[0\]\.bbx"),
        (("gnd", 0, "bbx"), [3, 2, 3, 4], r"gnd\[0\]\.bbx: .* x0 < x1"),
        (
            ("gnd", 0),
            {"bbx": [0, 0, 1, 1], "easy": [], "hard": [], "junk": [1]},
            "no positive",
        ),
    ],
)
def test_what_cannot_be_a_benchmark_is_refused_by_name(path, value, message):
    with pytest.raises(UserError, match=f"^source: .*{message}"):
        ground_truth.from_revisited(changed(path, value), "small", source="source")


@pytest.mark.parametrize("value", [None, [], "imlist", 3])
def test_the_whole_must_be_a_dict(value):
    with pytest.raises(UserError, match="must be a dict"):
        ground_truth.from_revisited(value, "small")


@settings(derandomize=True, deadline=None, max_examples=100)
@given(
    st.sampled_from(
        [("imlist",), ("gnd",), ("gnd", 0), ("gnd", 0, "easy"), ("gnd", 0, "bbx")]
    ),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    ),
)
def test_any_value_anywhere_is_read_or_refused_in_words(path, value):
    try:
        truth = ground_truth.from_revisited(changed(path, value), "small")
    except UserError as error:
        assert str(error).startswith("ground truth: ")
    else:
        assert len(truth.easy) == len(truth.queries) == 2


class Runs:
    def __reduce__(self):
        return os.system, ("true",)


CUT = pickle.dumps(GOOD)[:-20]


@pytest.mark.parametrize(
    ("file", "data", "message"),
    [
        ("gnd_x.pkl", pickle.dumps(Runs()), r"posix\.system.*nothing was run"),
        ("gnd_x.pkl", CUT, "truncated or malformed pkl"),
        ("gnd_x.pkl", b"", "truncated or malformed pkl"),
        ("gnd_x.pkl", b"version https://git-lfs.github.com/spec/v1\n", "malformed"),
        ("gnd_x.pkl", b"\x80\x04]" * 50000 + b".", "must be a dict"),
        ("gnd_x.json", b"\xff\xfe{}", "malformed json"),
        ("gnd_x.json", b'{"imlist": ', "malformed json"),
        ("gnd_x.json", b"[" * 200000, "malformed json"),
        ("gnd_x.json", b"[" + b"9" * 5000 + b"]", "malformed json"),
        ("gnd_x.txt", b"", "a .pkl or a .json file"),
        ("gnd_.json", json.dumps(GOOD).encode(), "has no name"),
    ],
)
def test_hostile_and_broken_files_are_refused_in_one_line(
    tmp_path, file, data, message
):
    path = tmp_path / file
    path.write_bytes(data)
    with pytest.raises(UserError, match=message) as caught:
        ground_truth.read_ground_truth(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value)) < 300 + len(str(path))


def test_a_missing_and_an_oversized_file(tmp_path, monkeypatch):
    path = tmp_path / "gnd_x.json"
    with pytest.raises(UserError, match="cannot be read: No such file"):
        ground_truth.read_ground_truth(path)
    monkeypatch.setattr(ground_truth, "MAX_BYTES", 2**20)
    path.write_bytes(b" " * (2**20 + 1))
    with pytest.raises(UserError, match="larger than 1 MiB"):
        ground_truth.read_ground_truth(path)


@pytest.mark.parametrize(
    ("name", "images", "easy"), [("roxford5k", 4993, 68), ("rparis6k", 6322, 70)]
)
def test_the_published_files(name, images, easy):
    if not REVISITED.is_dir():
        pytest.skip(f"{REVISITED} is not here: the annotations are not tokret's own")
    truth = ground_truth.read_ground_truth(REVISITED / f"gnd_{name}.pkl")
    assert (truth.name, len(truth.images), len(truth.queries)) == (name, images, 70)
    assert sum(len(items) > 0 for items in truth.easy) == easy
    assert truth.boxes.shape == (70, 4)


def test_the_form_of_2007_is_read_as_easy():
    entry = {"bbx": [0, 0, 9, 9], "ok": [2, 0], "junk": [1]}
    mapping = {"imlist": ["a", "b", "c"], "qimlist": ["c"], "gnd": [entry]}
    truth = ground_truth.from_revisited(mapping, "oxford5k")
    assert truth.easy[0].tolist() == [2, 0] and truth.hard[0].tolist() == []
    assert truth.junk[0].tolist() == [1]
    entry["junk"] = [2]
    with pytest.raises(UserError, match="is twice"):
        ground_truth.from_revisited(mapping, "oxford5k")
