import subprocess
import sys
from pathlib import Path

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


def test_a_closed_output_is_not_a_defect():
    with subprocess.Popen(
        [sys.executable, "-c", WRITER], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141
    with pytest.raises(BrokenPipeError):  # another pipe's end is one
        exit_status(fail(BrokenPipeError()))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device")
def test_a_full_disk_is_reported_in_a_line():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", WRITER], stdout=full, stderr=subprocess.PIPE
        )
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: ") and done.stderr.count(b"\n") == 1
    assert b"No space left" in done.stderr
