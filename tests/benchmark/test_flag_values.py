import pytest

from tokret.benchmark.flag_values import count, folder, new_file, turns
from tokret.errors import UserError


def test_values_are_read(tmp_path):
    assert turns("9999") == 9999 and count("--n")("12") == 12
    assert folder("--dir")(str(tmp_path)) == tmp_path
    (tmp_path / "link").symlink_to(tmp_path / "old")
    (tmp_path / "old").write_text("")
    for name, path in (("new", "new"), ("old", "old"), ("link", "old")):
        assert new_file(str(tmp_path / name)) == tmp_path / path
    assert {path.name for path in tmp_path.iterdir()} == {"link", "old"}


@pytest.mark.parametrize("text", ["0", "-1", "x", "", "9" * 5_000, "1e3"])
def test_what_is_no_number_is_a_short_line(text):
    for read in (turns, count("--n")):
        with pytest.raises(UserError) as caught:
            read(text)
        assert len(str(caught.value)) < 80


@pytest.mark.parametrize(
    "name", ["/dev/null", "/proc/x.json", "no/x.json", ".", "x" * 300]
)
def test_where_no_file_can_be_is_told_at_once(name):
    with pytest.raises(UserError, match=r"^--json="):
        new_file(name)


def test_links_in_a_circle_are_no_file(tmp_path):
    (tmp_path / "one").symlink_to(tmp_path / "two")
    (tmp_path / "two").symlink_to(tmp_path / "one")
    with pytest.raises(UserError, match=r"^--json="):
        new_file(str(tmp_path / "one"))


def test_what_is_no_folder(tmp_path):
    for name in (str(tmp_path / "none"), ""):
        with pytest.raises(UserError, match=r"^--dir="):
            folder("--dir")(name)
