"""Signals while training; those that end a process have one of their own."""

import os
import signal
import subprocess
import sys

import pytest

from tokret.training.interruption import stop_requests


def test_sigterm_is_noticed_and_then_its_own_again():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with stop_requests() as requested:
        assert not requested(1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert requested(2) and requested.status == 75
    assert before == (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))


# A run of 3 steps. As XLA's compiler, `compile` is one call into C that takes for ever,
# and Python calls no handler of a signal before it returns.
RUN = """
import hashlib, sys, threading, time
from tokret.errors import StoppedError
from tokret.runtime.ending import exit_status, leave
from tokret.training.interruption import stop_requests

def compile():
    # The other thread runs once this one gives Python's lock away: in C.
    waits = threading.Lock()
    with waits:
        report = lambda: waits.acquire() and print("compiling", flush=True)
        threading.Thread(target=report, daemon=True).start()
        sys.setswitchinterval(1e6)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)

def program():
    with stop_requests() as requested:
        if sys.argv[1] == "compiling":
            compile()
        requested(1)
        print("training", flush=True)
        while not requested(2):
            time.sleep(0.01)
        if sys.argv[1] == "saving":
            compile()
        raise StoppedError("stopped after step 2", requested.status)

leave(exit_status(program))
"""


@pytest.fixture
def run():
    """Returns a function that sends signals to a run, each after a line of it."""

    def send(moment, *numbers):
        with subprocess.Popen(
            [sys.executable, "-c", RUN, moment],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            for number in numbers:
                process.stdout.readline()
                process.send_signal(number)
            _, err = process.communicate(timeout=600)
        return process.returncode, err.splitlines()

    return send


def test_the_first_interrupt_saves(run):
    status, (notice, end) = run("training", signal.SIGINT)
    assert status == 130 and end == "stopped after step 2"
    assert notice.startswith("interrupted: ") and "Ctrl-C again" in notice
    for number in (signal.SIGTERM, signal.SIGHUP):
        assert run("training", number) == (75, ["stopped after step 2"])


def test_a_stop_from_within_has_a_status_of_its_own():
    with stop_requests() as requested:
        for _ in range(2):
            requested.request(141)
        assert requested(1) and requested.status == 141


def test_an_interrupt_while_compiling_ends_at_once(run):
    status, (line,) = run("compiling", signal.SIGINT)
    assert status == 130
    assert line.startswith("interrupted: nothing is lost; the same command resumes")


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_second_interrupt_ends_at_once(run, first):
    status, lines = run("saving", first, signal.SIGINT)
    assert status == 130
    assert lines[-1].startswith("interrupted again: nothing is saved; the same command")
