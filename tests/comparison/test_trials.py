"""The programs' exit statuses, distinguished."""

import inspect
import json
import os
import signal
import subprocess
import sys
import time

import pytest

import train
from tokret.comparison import trials
from tokret.comparison.trials import DivergedError, Trial
from tokret.errors import UserError
from tokret.retrieval import extraction


@pytest.fixture
def programs(monkeypatch, tmp_path):
    """Writes what stands in for train.py and eval.py."""
    starter = "import runpy, sys; runpy.run_path(sys.argv[1] + '.py')"
    monkeypatch.setattr(trials, "TOKRET", [sys.executable, "-c", starter])
    monkeypatch.chdir(tmp_path)

    def write(train="", evaluate=""):
        (tmp_path / "train.py").write_text(train)
        (tmp_path / "eval.py").write_text(evaluate)
        return Trial("recipe.py:gem", {"epochs": 2}, tmp_path / "run")

    return write


@pytest.mark.parametrize(
    ("program", "error", "message"),
    [
        ("sys.exit('error: 11 updates in a row were non-finite')", UserError, "1: "),
        (
            "print('error: 11 updates in a row were non-finite', file=sys.stderr);"
            "sys.exit(2)",
            DivergedError,
            "were non-finite",
        ),
        (
            "print('error: photo is missing\\nlater words', file=sys.stderr);"
            "sys.exit(2)",
            UserError,
            "train .*: photo is missing",
        ),
        ("os.kill(os.getpid(), 9)", UserError, "ended by SIGKILL"),
        ("print('stopped', file=sys.stderr); sys.exit(75)", UserError, "75: stopped"),
    ],
)
def test_ends_are_distinguished(programs, program, error, message):
    trial = programs(f"import os, sys\n{program}")
    with pytest.raises(UserError, match=message) as caught:
        trial.train()
    assert type(caught.value) is error
    assert not (trial.workdir / "trained").exists()


def test_what_is_done_is_not_done_again(programs):
    evaluate = """
import json, pathlib
folder = pathlib.Path({!r}) / "eval"
folder.mkdir(exist_ok=True)
numbers = {{"mAP": {}, "recall@1": 1.0}}
content = {{"benchmarks": {{"unseen": {{"all": numbers}}}}, "environment": {{}}}}
(folder / "results.json").write_text(json.dumps(content))
"""
    trial = programs("")
    workdir = str(trial.workdir)
    trial.train()
    programs("raise SystemExit(1)", evaluate.format(workdir, 0.5))
    trial.train()
    assert trial.measure("one")["all"]["mAP"] == 0.5
    programs("", "raise SystemExit(1)")
    assert trial.measure("one")["all"]["mAP"] == 0.5
    programs("", evaluate.format(workdir, "None"))
    with pytest.raises(UserError, match="no query has another"):
        trial.measure("two")
    assert not (trial.workdir / "two.json").exists()
    with pytest.raises(UserError, match="made with epochs=2, not 3"):
        trial._replace(fields={"epochs": 3}).train()


@pytest.mark.parametrize(
    "content", ["", "[1]", "{}", '{"all": {"mAP": "1"}}', "[" * 9999]
)
def test_damaged_numbers_of_a_trial_are_one_line(programs, content):
    trial = programs("")
    trial.train()
    (trial.workdir / "one.json").write_text(content)
    with pytest.raises(UserError, match=r"one\.json: damaged .*: remove it"):
        trial.measure("one")
    (trial.workdir / "trial.json").write_text(content)
    with pytest.raises(UserError, match=r"trial\.json: damaged|was made with"):
        trial.train()


def test_who_ends_the_comparison_ends_the_training(tmp_path):
    (tmp_path / "train.py").write_text(
        "import os, pathlib, time\n"
        "pathlib.Path('pid').write_text(str(os.getpid()))\ntime.sleep(3600)\n"
    )
    (tmp_path / "config.py").touch()
    code = (
        "import runpy, sys; from tokret.comparison import trials;"
        "from tokret.__main__ import main;"
        "starter = 'import runpy, sys; runpy.run_path(sys.argv[1] + \\'.py\\')';"
        "trials.TOKRET = [sys.executable, '-c', starter]; main()"
    )
    arguments = (f"--output={tmp_path / 'out'}", f"--config={tmp_path / 'config.py'}")
    process = subprocess.Popen(
        [sys.executable, "-c", code, "compare", *arguments], cwd=tmp_path
    )
    pid = tmp_path / "pid"
    deadline = time.monotonic() + 600
    while not (pid.exists() and pid.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=600) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
    note = json.loads(next((tmp_path / "out").rglob("trial.json")).read_text())
    assert note["config"].endswith("config.py:token")


def test_divergence_is_found_in_the_errors_of_training_and_extraction():
    for module in (train, extraction):
        assert trials.DIVERGED.search(inspect.getsource(module))
