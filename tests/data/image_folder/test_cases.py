"""Folders and tables from public bug reports, where they are beside the project."""

import pytest

from tokret.errors import UserError


@pytest.fixture
def case(shared):
    """Returns a function from a case's name to its folder."""

    def find(name):
        folder = shared / "cases" / name
        if not folder.is_dir():
            pytest.skip(f"{folder} is missing")
        return folder

    return find


@pytest.fixture
def prepare(read, tmp_path, names):
    """Prepares a folder: classes and the photos' names."""

    def run(**fields):
        dataset, splits = read(tmp_path / "d", "image_folder", **fields)
        found = [name for records in splits.values() for name in names(records)]
        return dataset.class_names, sorted(found)

    return run


def test_spaces_and_joiners_in_names(case, prepare, tokret):
    folder = case("01-nbsp-names")
    classes, found = prepare(root=str(folder / "photos"))
    files = (folder / "photos").glob("*/*")
    assert classes == ["a", "b"] and len(found) == 8
    assert found == sorted(p.relative_to(folder / "photos").as_posix() for p in files)
    classes, found = prepare(root=str(folder / "class_name"))
    assert classes == ["b", "café\u00a0bar"] and len(found) == 6
    status, out, err = tokret(
        *("data", "check", "image_folder", f"--root={folder / 'class_name'}"),
        "--workers=1",
    )
    assert status == 0 and "2 classes: b, café\u00a0bar" in out, err


def test_hidden_class(case, prepare, capsys):
    classes, found = prepare(root=str(case("03-hidden-class") / "photos"))
    assert classes == ["a", "b"] and len(found) == 8
    assert (
        "2 hidden files and folders skipped: .ipynb_checkpoints, a/@eaDir"
        in capsys.readouterr().err
    )


def test_a_row_with_an_unquoted_comma(case, prepare):
    table = case("06-csv-extra-field") / "table.csv"
    with pytest.raises(UserError, match=r"table\.csv, line 2: has 3 fields, the .* 2"):
        prepare(table=str(table))


def test_a_root_one_level_too_high(case, prepare, capsys):
    classes, _ = prepare(root=str(case("37-root-too-high") / "photos"))
    err = capsys.readouterr().err
    assert classes == ["test", "train"] and "2 classes: test, train" in err
    assert "if the classes are one level deeper (test/a, test/b, " in err
