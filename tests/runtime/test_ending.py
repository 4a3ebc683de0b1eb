import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tokret.errors import UserError
from tokret.runtime.ending import exit_status


def fail(error):
    def program():
        raise error

    return program


def test_statuses(capsys):
    assert exit_status(lambda: None) == 0
    assert exit_status(fail(UserError("a file:\n  is missing"))) == 2
    assert capsys.readouterr().err == "error: a file: is missing\n"
    assert exit_status(fail(KeyboardInterrupt())) == 130


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (MemoryError("Unable to allocate 3 TiB"), "out of memory: Unable to allocate"),
        (
            RuntimeError("RESOURCE_EXHAUSTED: 37 GB"),
            "out of memory: RESOURCE_EXHAUSTED",
        ),
        (RuntimeError("Symlink loop from 'L'"), "Symlink loop from 'L'; name a file"),
    ],
)
def test_memory_and_links_are_reported_in_a_line(capsys, error, line):
    assert exit_status(fail(error)) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"error: {line}") and printed.count("\n") == 1


WRITER = """
import sys
from tokret.runtime.ending import exit_status
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


# As XLA's compiler, the last is one call into C, in which Python handles no signal. The
# other thread runs once the main thread gives Python's lock away: in that call.
BUSY = """
import hashlib, sys, threading, time
from tokret.errors import UserError
from tokret.runtime import ending

class Unfinished:  # as a library's reads that complete later
    def __del__(self):
        raise RuntimeError("Event loop is closed")

def program():
    unfinished = Unfinished()
    ending.keeps("finished photos are kept")
    waits = threading.Lock()
    with waits:
        print_ready = lambda: waits.acquire() and print("ready", flush=True)
        threading.Thread(target=print_ready, daemon=True).start()
        sys.setswitchinterval(1e6)
    try:
        if sys.argv[1] != "C":
            time.sleep(1000)
        hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
    except KeyboardInterrupt:
        if sys.argv[1] == "hidden":
            return
        raise UserError("a library's own words")
    finally:
        print("cleaned up", flush=True)

ending.leave(ending.exit_status(program))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("where", ["python", "hidden", "C"])
def test_a_signal_ends_a_program_with_a_line(number, where):
    with subprocess.Popen(
        [sys.executable, "-c", BUSY, where],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        process.stdout.readline()
        process.send_signal(number)
        out, err = process.communicate(timeout=600)
    assert process.returncode == 128 + number
    word = "interrupted" if number == signal.SIGINT else "terminated"
    assert err == f"{word}: finished photos are kept\n"
    assert out == ("" if where == "C" else "cleaned up\n")


IMPORTS = """
import sys
from tokret import __main__
import tokret.commands
tokret.commands.__path__.append(sys.argv[1])
__main__.run("slow", [], "tokret slow")
"""


def test_an_interrupt_while_libraries_are_imported(tmp_path):
    slow = "import time\nprint('ready', flush=True)\ntime.sleep(1000)\n"
    (tmp_path / "slow.py").write_text(slow)
    with subprocess.Popen(
        [sys.executable, "-c", IMPORTS, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=600) == ("", "interrupted\n")
    assert process.returncode == 130


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_a_program_ignores_is_ignored(number):
    ignoring = f"import signal; signal.signal({number:d}, signal.SIG_IGN)\n{BUSY}"
    with subprocess.Popen(
        [sys.executable, "-c", ignoring, "python"], stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        process.send_signal(number)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=1)
        process.terminate()
    assert process.returncode == 143


def test_handlers_are_as_before():
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    assert exit_status(lambda: None) == 0
    assert before == [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with ThreadPoolExecutor() as pool:  # only the main thread has handlers
        assert pool.submit(exit_status, lambda: None).result() == 0
