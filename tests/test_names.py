import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokret.names import counted, first_names, is_valid_name, one_line, printable

VALID = (
    "Screenshot 2026-04-15 at 1.01.11\u202fAM.png",  # as macOS names them
    "Sni\u0301mek\u00a02026.png",
    "\u0645\u06cc\u200c\u0634\u0648\u062f.jpg",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467.jpg",
    "newer than the tables of Python 3.11: \U0001fae9",
    "a private one: \ue000",
    " ",
)
INVALID = ("", "a\nb", "a\rb", "\x00", "\x1b[31m", "\x7f", "\x85", "\u2028", "\udcff")


@pytest.mark.parametrize("name", VALID)
def test_spaces_and_joiners_are_valid(name):
    assert is_valid_name(name) and printable(name) == name


@pytest.mark.parametrize("name", INVALID)
def test_control_characters_and_lone_surrogates_are_not(name):
    assert not is_valid_name(name)
    assert is_valid_name(printable(f"a{name}"))


def test_what_changes_the_direction_is_escaped_when_printed():
    assert is_valid_name("a\u202egpj.exe")
    assert printable("a\u202egpj.exe") == "a\\u202egpj.exe"


@given(st.text(st.characters(codec=None)))
def test_anything_is_printed_in_one_line(text):
    for shown in (printable(text), one_line(text)):
        assert len(shown.splitlines()) < 2
        shown.encode()
    assert len(printable(text, 9).encode("ascii", "backslashreplace")) < 9 * 10


def test_spaces_of_names_are_kept_in_one_line():
    assert one_line("\ta\u202fb \n  c\u00a0") == "a\u202fb c\u00a0"


def test_the_first_names_and_how_many_more():
    assert first_names(["a", "b\n"]) == "a, b\\n"
    assert first_names([*"abcdefg"]) == "a, b, c, d, e and 2 more"


def test_a_terminal_of_another_encoding_prints_every_name():
    program = (
        "import sys; from tokret.runtime.ending import exit_status\n"
        "sys.exit(exit_status(lambda: print('caf\\xe9 \\u202f \\udcff')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONIOENCODING": "ascii", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == b"caf\\xe9 \\u202f \\udcff\n"


def test_one_is_singular():
    assert counted(1, "photo") == "1 photo" and counted(0, "photo") == "0 photos"
    assert counted(1_234, "class", "classes") == "1,234 classes"
