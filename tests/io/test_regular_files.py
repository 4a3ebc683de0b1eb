"""What is no regular file is refused at once, and parsers' errors become one line."""

import os
import struct
import tokenize
import zlib

import pytest

from tokret.errors import UserError
from tokret.io.file_locks import held
from tokret.io.regular_files import open_file, parsing, read_file


def test_a_file_and_a_link_to_it_are_read(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("a")
    assert read_file(tmp_path / "link", 3) == b"abc"


def test_a_folder_a_pipe_and_a_device_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, kind in ((tmp_path, "a folder"), (tmp_path / "pipe", "a named pipe")):
        with pytest.raises(UserError, match=f"{path}: is {kind}, where a file"):
            open_file(path)
    with pytest.raises(UserError, match="/dev/zero: is a device"):
        read_file("/dev/zero", 10)


@pytest.mark.parametrize("name", ["missing", "a\0b"])
def test_a_path_that_cannot_be_opened_is_named(tmp_path, name):
    with pytest.raises(UserError, match="cannot be read"):
        open_file(tmp_path / name)


def test_a_file_above_the_limit_is_refused(tmp_path):
    (tmp_path / "a").write_bytes(bytes(1025))
    with pytest.raises(UserError, match="a: is larger than 0.000976562 MiB"):
        read_file(tmp_path / "a", 1024)


@pytest.mark.parametrize(
    "error",
    [tokenize.TokenError("x", (1, 2)), zlib.error("x"), struct.error("x"), KeyError()],
)
def test_errors_of_parsers_become_one_line(error):
    with pytest.raises(UserError, match=r"^f\.npy: damaged \(.+\): write it again$"):
        with parsing("f.npy", "write it again"):
            raise error


def test_a_defect_of_another_kind_passes():
    with pytest.raises(AssertionError), parsing("f", "r"):
        raise AssertionError


@pytest.mark.parametrize(
    ("module", "error"), [("tokret.x", TypeError), ("x", UserError)]
)
def test_a_defect_of_this_package_is_no_damage(module, error):
    with pytest.raises(error), parsing("f", "r"):
        exec("None + 1", {"__name__": module})


def test_a_link_can_be_refused(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("a")
    with pytest.raises(UserError, match="link: cannot be read: "):
        read_file(tmp_path / "link", 3, follow_links=False)


def test_an_error_can_be_printed():
    with pytest.raises(UserError) as caught:
        open_file("missing\udc80")
    str(caught.value).encode()


def test_a_file_without_a_size_is_read_up_to_the_limit():
    content = read_file("/proc/self/status", 2**20)
    assert content.startswith(b"Name:") and len(content) > 100
    with pytest.raises(UserError, match="is larger than"):
        read_file("/proc/self/status", 100)


def test_a_lock_that_is_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / ".lock")
    with held(tmp_path / ".lock", "busy"):
        with pytest.raises(UserError, match="busy"), held(tmp_path / ".lock", "busy"):
            pass
    with pytest.raises(UserError, match="cannot be opened: Is a directory"):
        with held(tmp_path, "busy"):
            pass
