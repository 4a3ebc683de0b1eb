import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokret.errors import UserError
from tokret.search.catalogue import (
    FILE,
    NO_SEGMENT,
    Catalogue,
    ModelInfo,
    PhotoEntry,
    read_catalogue,
    write_catalogue,
)
from tokret.search.photos import Stamp

MODEL = ModelInfo("/weights", False, "abc", 1024, (1.0, 0.5))
SEGMENT = "0123456789abcdef"
WHOLE = Catalogue(
    "/photos",
    MODEL,
    {
        "a/b \u00e9.jpg": PhotoEntry(SEGMENT, 3, Stamp(10, 20), ""),
        "bad.jpg": PhotoEntry(NO_SEGMENT, 0, Stamp(0, 0), "empty"),
    },
)


def test_a_catalogue_comes_back(tmp_path):
    write_catalogue(tmp_path, WHOLE)
    assert read_catalogue(tmp_path) == WHOLE
    assert WHOLE.segments() == [SEGMENT]


def test_only_what_would_change_descriptors_is_a_difference():
    assert MODEL.difference(MODEL) is None
    moved = ModelInfo("/elsewhere", True, "abc", 1024, (1.0, 0.5))
    assert MODEL.difference(moved) is None
    other = ModelInfo("/weights", False, "abc", 512, (1.0, 0.5))
    assert MODEL.difference(other) == "longest_side: 512 and 1024"


def test_a_missing_catalogue_is_a_line(tmp_path):
    with pytest.raises(UserError, match="is not an index; create one"):
        read_catalogue(tmp_path)


def changed(*path, value):
    def change(fields):
        for name in path[:-1]:
            fields = fields[name]
        fields[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed("version", value=2), "version 2, not 1"),
        (changed("root", value=3), "damaged"),
        (changed("model", value=[]), "damaged"),
        (changed("model", "scales", value=["1"]), "damaged"),
        (changed("photos", value=[]), "damaged"),
        (
            changed("photos", "../up.jpg", value=[SEGMENT, 0, [1, 1], ""]),
            "not a photo's path",
        ),
        (
            changed("photos", "/etc/x.jpg", value=[SEGMENT, 0, [1, 1], ""]),
            "not a photo's path",
        ),
        (
            changed("photos", "x.jpg", value=["../../up", 0, [1, 1], ""]),
            "matching regex",
        ),
        (changed("photos", "x.jpg", value=["", 0, [1, 1], ""]), "without an error"),
        (changed("photos", "x.jpg", value=[SEGMENT, -1, [1, 1], ""]), ">= 0"),
        (
            changed("photos", "x.jpg", value=[SEGMENT, True, [1, 1], ""]),
            "Expected `int`",
        ),
        (changed("photos", "x.jpg", value=[SEGMENT, 0]), "damaged"),
    ],
)
def test_damage_is_a_line(tmp_path, change, message):
    write_catalogue(tmp_path, WHOLE)
    fields = json.loads((tmp_path / FILE).read_text())
    change(fields)
    (tmp_path / FILE).write_text(json.dumps(fields))
    with pytest.raises(UserError, match=message):
        read_catalogue(tmp_path)


@settings(deadline=None)  # files are written
@given(st.binary(max_size=60), st.integers(0, 400))
def test_bytes_of_any_kind_are_refused_or_read(tmp_path_factory, junk, at):
    folder = tmp_path_factory.mktemp("index")
    write_catalogue(folder, WHOLE)
    whole = (folder / FILE).read_bytes()
    (folder / FILE).write_bytes(whole[:at] + junk + whole[at + len(junk) :])
    try:
        assert isinstance(read_catalogue(folder), Catalogue)
    except UserError as error:
        assert str(folder) in str(error)
