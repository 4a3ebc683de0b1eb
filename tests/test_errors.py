import subprocess
import sys

import pytest

from tokret.errors import UserError, exit_status


def fail(error):
    def program():
        raise error

    return program


def test_statuses(capsys):
    assert exit_status(lambda: None) == 0
    assert exit_status(fail(UserError("a file:\n  is missing"))) == 2
    assert capsys.readouterr().err == "error: a file: is missing\n"
    assert exit_status(fail(KeyboardInterrupt())) == 130


WRITER = """
import sys
from tokret.errors import exit_status
sys.exit(exit_status(lambda: print("a line\\n" * 100_000)))
"""


def test_a_reader_that_has_gone_is_no_defect():
    with subprocess.Popen(
        [sys.executable, "-c", WRITER], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141
    with pytest.raises(BrokenPipeError):  # another pipe's end is one
        exit_status(fail(BrokenPipeError()))
