import os

import pytest

from tokret.data.preparing import csv_files
from tokret.errors import UserError


def read(path, text, columns=("id", "n")):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return list(csv_files.read_rows(path, columns))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "train.csv"


@pytest.mark.parametrize(
    "text",
    [
        "id,n\na,1\nb,2\n",
        "\ufeffid,n\na,1\nb,2",
        "id,n\r\na,1\r\nb,2\r\n",
        "n,url,id\n1,http://x,a\n2,http://y,b\n",
        'id,n\n"a",1\n b , 2 \n',
    ],
)
def test_every_way_to_write_a_table(path, text):
    assert read(path, text) == [(2, ["a", "1"]), (3, ["b", "2"])]


def test_empty_fields_beyond_the_heading_are_allowed(path):
    assert read(path, "id,n\na,1,, ,\n") == [(2, ["a", "1"])]


def test_spaces_beyond_ascii_belong_to_names(path):
    assert read(path, "id,n\n a\u00a0,\u202f1 \n") == [(2, ["a\u00a0", "\u202f1"])]


def test_what_is_no_file_is_named_and_not_waited_for(path):
    os.mkfifo(path)
    for rows in (csv_files.read_rows(path, ("id",)), csv_files.read_lines(path)):
        with pytest.raises(UserError, match=r"train\.csv: is a named pipe"):
            list(rows)


def test_lines_are_counted_as_an_editor_does(path):
    text = 'id,url,n\na,"one\ntwo",1\n\nb,x,2\n'
    assert [line for line, _ in read(path, text)] == [3, 5]


def test_ten_thousand_photos_fit_a_field(path):
    field = " ".join(["0" * 16] * 20_000)
    assert read(path, f"id,n\n{field},1\n") == [(2, [field, "1"])]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column 'id'"),
        ("<html>404</html>\n", "no column 'id'"),
        ("id,number\na,1\n", "no column 'n'"),
        ("id,n\na,1\nb\n", "line 3: has 1 fields, the heading 2"),
        ("id,n\na,1\nb,2, IL\n", "line 3: has 3 fields, the heading 2; quote"),
        ("id,n,id\na,1,b\n", "two columns 'id'"),
        (b"id,n\n\xff,1\n", "not UTF-8"),
        ('id,n\n"' + "a" * 2**24 + "b,1\n", "line 2: field larger"),
    ],
)
def test_mistakes_are_named(path, text, message):
    with pytest.raises(UserError, match=rf"train\.csv.*{message}"):
        read(path, text)


def test_a_file_that_is_not_there_is_named(path):
    with pytest.raises(UserError, match=r"train\.csv: cannot be read"):
        list(csv_files.read_rows(path, ("id",)))


@pytest.mark.parametrize("text", ["", "-1", "1.0", "1e3", "x", "²", "1" * 10, "nan"])
def test_what_is_no_number_is_named(path, text):
    assert csv_files.parse_number("007", path, 5, "label") == 7
    with pytest.raises(UserError, match=r"train\.csv, line 5: label is .* no number"):
        csv_files.parse_number(text, path, 5, "label")


def test_optional_columns(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"path,x1,label\r\na,,b\r\n\r\nc, 3 ,d\r\n")
    wanted = (("label", "path"), ("x0", "x1"))
    assert list(csv_files.read_rows(path, *wanted)) == [
        (2, ["b", "a", "", ""]),
        (4, ["d", "c", "", "3"]),
    ]
    path.write_text("path,label,x1\na,b\n")
    assert list(csv_files.read_rows(path, *wanted)) == [(2, ["b", "a", "", ""])]


def test_lines_of_a_list(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffa b\r\n\r\n 写真,\x0b2\x85 \r\nlast".encode())
    assert list(csv_files.read_lines(path)) == [
        (1, "a b"),
        (3, "写真,\x0b2"),
        (4, "last"),
    ]
    path.write_bytes(b"\xff")
    for bad in (path, tmp_path / "none"):
        with pytest.raises(UserError, match=str(bad)):
            list(csv_files.read_lines(bad))
