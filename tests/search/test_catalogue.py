import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokret.errors import UserError
from tokret.search.catalogue import (
    FILE,
    Catalogue,
    ModelInfo,
    PhotoEntry,
    encode_catalogue,
    read_catalogue,
)
from tokret.search.photos import Stamp

MODEL = ModelInfo("/weights", "abc", 1024, (1.0, 0.5), {"num_heads": 8}, "f" * 16)
PART, DIGEST = "0123456789abcdef", "fedcba9876543210"
WHOLE = Catalogue(
    "/photos",
    MODEL,
    {
        "a/b \u00e9\u202f.jpg": PhotoEntry(Stamp(10, 20), "", DIGEST, PART, 3),
        "bad.jpg": PhotoEntry(Stamp(0, 0), "empty"),
        "copy.jpg": PhotoEntry(Stamp(10, 30), "", DIGEST, PART, 3),
    },
)


def write(folder, catalogue=WHOLE):
    (folder / FILE).write_bytes(encode_catalogue(catalogue))


def test_a_catalogue_comes_back(tmp_path):
    write(tmp_path)
    found = read_catalogue(tmp_path)
    assert (found.root, found.model, found.photos) == ("/photos", MODEL, WHOLE.photos)
    assert found.live_rows() == {PART: {3: ["a/b \u00e9\u202f.jpg", "copy.jpg"]}}


def test_only_what_would_change_descriptors_is_a_difference():
    assert MODEL.difference(MODEL) is None
    moved = ModelInfo("/elsewhere", "abc", 1024, (1.0, 0.5), {"num_heads": 8})
    assert MODEL.difference(moved) is None
    other = ModelInfo("/weights", "abc", 512, (1.0, 0.5), {})
    assert MODEL.difference(other) == "longest_side: 512 and 1024"
    other = ModelInfo("/weights", "abc", 1024, (1.0, 0.5), {"num_heads": 4})
    assert MODEL.difference(other) == "model.num_heads: 4 and 8"


def test_a_missing_catalogue_is_a_line(tmp_path):
    (tmp_path / "weights").mkdir()
    with pytest.raises(UserError, match="is not an index; create one"):
        read_catalogue(tmp_path)
    (tmp_path / ".lock").touch()
    with pytest.raises(UserError, match="has no complete part yet; wait, or index"):
        read_catalogue(tmp_path)


def changed(*path, value):
    def change(fields):
        for name in path[:-1]:
            fields = fields[name]
        fields[path[-1]] = value

    return change


def photo(name, *fields):
    return changed("photos", name, value=list(fields))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed("version", value=1), "version 1, not 3"),
        (changed("root", value=3), "damaged"),
        (changed("root", value="photos"), "not an absolute path"),
        (
            changed("root", value="/p\n\x1b[31mred"),
            r"root '/p\\n\\x1b\[31mred' has con",
        ),
        (changed("root", value="/p\ud800"), "damaged"),
        (changed("root", value="/others"), "another checksum"),
        (changed("model", value=[]), "damaged"),
        (changed("model", "scales", value=["1"]), "damaged"),
        (changed("model", "copy", value="../x"), "matching regex"),
        (changed("photos", value=[]), "damaged"),
        (photo("../up.jpg", [1, 1], "", DIGEST, PART, 0), "not a photo's path"),
        (photo("/etc/x.jpg", [1, 1], "", DIGEST, PART, 0), "not a photo's path"),
        (photo("a\x1b.jpg", [1, 1], "", DIGEST, PART, 0), "not a photo's path"),
        (photo("x.jpg", [1, 1], "", DIGEST, "../../up", 0), "matching regex"),
        (photo("x.jpg", [1, 1]), "either an error, or a digest"),
        (photo("x.jpg", [1, 1], "bad", DIGEST, PART), "either an error, or a digest"),
        (photo("x.jpg", [1, 1], "", "", PART), "either an error, or a digest"),
        (photo("x.jpg", [1, 1], "", DIGEST, PART, -1), ">= 0"),
        (photo("x.jpg", [1, 1], "", DIGEST, PART, True), "Expected `int`"),
        (photo("x.jpg", "", DIGEST), "damaged"),
        # right by its form
        (photo("x.jpg", [1, 1], "", DIGEST, PART, 0), "another checksum"),
    ],
)
def test_damage_is_a_line(tmp_path, change, message):
    write(tmp_path)
    fields = json.loads((tmp_path / FILE).read_text())
    change(fields)
    (tmp_path / FILE).write_text(json.dumps(fields))
    with pytest.raises(UserError, match=message) as caught:
        read_catalogue(tmp_path)
    assert str(caught.value).isprintable()


@settings(deadline=None)  # files are written
@given(st.binary(max_size=60), st.integers(0, 400))
def test_bytes_of_any_kind_are_refused(tmp_path_factory, junk, at):
    folder = tmp_path_factory.mktemp("index")
    write(folder)
    whole = (folder / FILE).read_bytes()
    (folder / FILE).write_bytes(whole[:at] + junk + whole[at + len(junk) :])
    try:
        assert read_catalogue(folder).photos == WHOLE.photos
    except UserError as error:
        assert str(folder) in str(error)
