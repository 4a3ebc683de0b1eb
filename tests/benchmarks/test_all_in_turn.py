import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tokret.benchmark import __main__ as main
from tokret.benchmark import speed_commands
from tokret.errors import UserError


@pytest.mark.parametrize("quick", [True, False])
def test_what_each_benchmark_of_a_row_is_told(tmp_path, monkeypatch, quick):
    told = {}
    monkeypatch.setattr(
        speed_commands,
        "_run_apart",
        lambda name, words: (told.update({name: words}), "why"),
    )
    before = tmp_path / "speed.json"
    before.write_text("an older one")
    flags = argparse.Namespace(turns=3, quick=quick, minutes=9.0, json=before)
    with pytest.raises(UserError, match="nothing could be measured"):
        speed_commands.run_all(flags)
    assert before.read_text() == "an older one"
    parser = main._parser()
    for name, words in told.items():  # flags that it has
        parsed = parser.parse_args([name, *words])
        assert getattr(parsed, "turns", 3) == 3
    database = 20_000 if quick else 1_000_000
    search = parser.parse_args(["search", *told["search"]])
    assert (search.database, search.forms) == (database, "")
    assert parser.parse_args(["train", *told["train"]]).minutes == (1 if quick else 9)
    assert ("bytes" in told) == (not quick) and not told.get("bytes")


def test_a_row_that_is_cut_off_keeps_what_was_measured(tmp_path, monkeypatch):
    """What one benchmark lacks ends it alone; a kill loses the one that ran."""
    written = tmp_path / "speed.json"
    seen = []

    def run_apart(name, arguments):
        if name == "scan":
            return None, "no room"
        if name == "start":
            seen.append(json.loads(written.read_text()))
            raise KeyboardInterrupt
        assert "--minutes=1.0" in arguments and "--turns=2" in arguments
        return {"cases": [], "environment": {"device": "cpu"}}, ""

    monkeypatch.setattr(speed_commands, "_run_apart", run_apart)
    flags = argparse.Namespace(turns=2, quick=True, minutes=9.0, json=written)
    try:
        speed_commands.run_all(flags)
    except KeyboardInterrupt:
        pass
    assert seen == [json.loads(written.read_text())]
    assert list(seen[0]["results"]) == ["inference", "train", "extract"]
    assert seen[0]["failed"] == {"scan": "no room"}
    assert {target["says"] for target in seen[0]["targets"]} == {"not measured"}
    assert [path.name for path in tmp_path.iterdir()] == ["speed.json"]


# A benchmark that cannot print what it measured, as after `| head`.
UNHEARD = """#!/bin/sh
echo '{"cases": []}' > "${4#--json=}"
exit 141
"""


def test_what_was_measured_is_kept_though_it_could_not_be_told(tmp_path, monkeypatch):
    benchmark = tmp_path / "benchmark"
    benchmark.write_text(UNHEARD)
    benchmark.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(benchmark))
    assert speed_commands._run_apart("train", []) == ({"cases": []}, "")


# A benchmark that starts a process of its own and never ends.
ENDLESS = """#!/bin/sh
sleep 120 &
echo $$ $! > "$TOLD.new" && mv "$TOLD.new" "$TOLD"
wait
"""
ALL = """
import signal, sys
from tokret.benchmark import __main__ as main
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job may ignore both
signal.signal(signal.SIGHUP, signal.SIG_DFL)
sys.executable, sys.argv = sys.argv[1], ["tokret.benchmark", "all", "--quick"]
sys.exit(main.exit_status(main.main))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_nothing_goes_on_beside_a_row_that_was_ended(tmp_path, number):
    benchmark, told = tmp_path / "benchmark", tmp_path / "told"
    benchmark.write_text(ENDLESS)
    benchmark.chmod(0o755)
    with subprocess.Popen(
        [sys.executable, "-c", ALL, str(benchmark)],
        env={**os.environ, "TOLD": str(told)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as row:
        _wait_until(told.exists)
        row.send_signal(number)
        assert row.wait(timeout=60) == 128 + number
    for process in told.read_text().split():
        _wait_until(_has_ended, process)  # long before it would end by itself


@pytest.mark.parametrize(("name", "at_once"), [("plan", True), ("scan", False)])
def test_what_compiles_for_minutes_ends_at_once(monkeypatch, name, at_once):
    """Python's own handlers wait until the compiler returns."""
    monkeypatch.setattr(signal, "getsignal", lambda number: signal.SIG_DFL)
    taken = []
    monkeypatch.setattr(signal, "signal", lambda number, _: taken.append(number))
    benchmark = main.BENCHMARKS[name]._replace(
        run=lambda flags: {}, report=lambda result: "done"
    )
    monkeypatch.setitem(main.BENCHMARKS, name, benchmark)
    monkeypatch.setattr(sys, "argv", ["tokret.benchmark", name])
    main.main()
    assert taken == ([] if at_once else [signal.SIGTERM, signal.SIGHUP])


def _wait_until(true, *arguments):
    end = time.monotonic() + 60
    while not true(*arguments):
        assert time.monotonic() < end
        time.sleep(0.01)


def _has_ended(process):
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return True
    return status.rpartition(")")[2].split()[0] == "Z"
