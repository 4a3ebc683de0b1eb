import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import __main__ as main
from benchmarks import all_in_turn
from tokret import command_line
from tokret.benchmark import speed
from tokret.benchmark.cases import Settings
from tokret.errors import UserError


@pytest.mark.parametrize("quick", [True, False])
def test_arguments_of_each_benchmark_of_the_row(tmp_path, monkeypatch, quick):
    rows = {}
    monkeypatch.setattr(
        all_in_turn, "run_apart", lambda name, words: (rows.update({name: words}), "w")
    )
    before = tmp_path / "speed.json"
    before.write_text("an older one")
    with pytest.raises(UserError, match="nothing could be measured"):
        all_in_turn.run(3, 9.0, quick, before)
    assert before.read_text() == "an older one"
    database = ["--database=20000"] if quick else []
    assert rows["search"] == ["--forms=", "--turns=3", *database]
    assert rows["train"] == ["--turns=3", f"--minutes={1.0 if quick else 9.0}"]
    assert ("bytes" in rows) == (not quick) and not rows.get("bytes")


def test_the_benchmarks_take_these_arguments():
    for quick in (True, False):
        for name in all_in_turn.ROW:
            words = all_in_turn.arguments_of(name, turns=3, minutes=9.0, quick=quick)
            call = command_line.parse(main.COMMANDS[name], words, "benchmarks")
            assert call.keywords.get("turns", 3) == 3
    words = all_in_turn.arguments_of("search", turns=3, minutes=9.0, quick=True)
    call = command_line.parse(main.COMMANDS["search"], words, "benchmarks")
    assert (call.keywords["database"], call.keywords["forms"]) == (20_000, ())


def test_a_row_that_is_interrupted_keeps_what_was_measured(tmp_path, monkeypatch):
    """A benchmark that fails ends alone; a kill loses the one that ran."""
    written = tmp_path / "speed.json"
    seen = []

    def run_apart(name, arguments):
        if name == "scan":
            return None, "no memory"
        if name == "start":
            seen.append(json.loads(written.read_text()))
            raise KeyboardInterrupt
        assert "--minutes=1.0" in arguments and "--turns=2" in arguments
        return {"cases": [], "environment": {"device": "cpu"}}, ""

    monkeypatch.setattr(all_in_turn, "run_apart", run_apart)
    with pytest.raises(KeyboardInterrupt):
        all_in_turn.run(2, 9.0, True, written)
    assert seen == [json.loads(written.read_text())]
    assert list(seen[0]["results"]) == ["inference", "train", "extract"]
    assert seen[0]["failed"] == {"scan": "no memory"}
    assert {target["verdict"] for target in seen[0]["targets"]} == {"not measured"}
    assert [path.name for path in tmp_path.iterdir()] == ["speed.json"]


# A benchmark that cannot print what it measured, as after `| head`.
UNHEARD = """#!/bin/sh
echo '{"cases": []}' > "${4#--json=}"
exit 141
"""


def test_what_was_measured_is_kept_if_printing_fails(tmp_path, monkeypatch):
    benchmark = tmp_path / "benchmark"
    benchmark.write_text(UNHEARD)
    benchmark.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(benchmark))
    assert all_in_turn.run_apart("train", []) == ({"cases": []}, "")


# A benchmark that starts a process of its own and never ends.
ENDLESS = """#!/bin/sh
sleep 3600 &
echo $$ $! > "$PIDS.new" && mv "$PIDS.new" "$PIDS"
wait
"""
ALL = """
import signal, sys
from benchmarks import __main__ as main
from tokret import command_line
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job may ignore both
signal.signal(signal.SIGHUP, signal.SIG_DFL)
sys.executable = sys.argv[1]
sys.exit(command_line.run(main.COMMANDS, ["all", "--quick"], "benchmarks"))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_nothing_still_runs_after_a_row_that_was_ended(tmp_path, number):
    benchmark, pids = tmp_path / "benchmark", tmp_path / "pids"
    benchmark.write_text(ENDLESS)
    benchmark.chmod(0o755)
    with subprocess.Popen(
        [sys.executable, "-c", ALL, str(benchmark)],
        env={**os.environ, "PIDS": str(pids)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as row:
        _wait_until(pids.exists)
        row.send_signal(number)
        assert row.wait(timeout=600) == 128 + number
    for process in pids.read_text().split():
        _wait_until(_has_ended, process)  # long before it would end by itself


def _wait_until(true, *arguments):
    end = time.monotonic() + 600
    while not true(*arguments):
        assert time.monotonic() < end
        time.sleep(0.01)


def _has_ended(process):
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return True
    return status.rpartition(")")[2].split()[0] == "Z"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"cases": "", "minutes": -1.0}, "minutes is -1"),
        ({"cases": "", "minutes": float("nan")}, "minutes is nan"),
        ({"cases": "no such case", "minutes": 1.0}, "no such case"),
    ],
)
def test_wrong_arguments_are_refused(arguments, words):
    with pytest.raises(UserError, match=words):
        speed.run("inference", Settings(), **arguments)
    with pytest.raises(UserError, match="turns is 0"):
        speed.run_single("scan", 0)
