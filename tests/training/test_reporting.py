import contextlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtime.terminal import on_terminal
from tokret.errors import UserError
from tokret.training.reporting import Reporter

METRICS = {"loss": 2.0, "top1": 0.25, "top5": 0.5, "learning_rate": 0.1}


def report(workdir, first_step, steps, until, **peak):
    fields = {"first_step": first_step, "steps": steps, "batch_size": 4, **peak}
    with contextlib.closing(Reporter(workdir, **fields)) as it:
        for step in range(first_step + 1, until + 1):
            it.advance()
            it.train(step, METRICS)
        it.validation(until, 1, {"loss": 1.0, "top1": 0.5, "top5": 1.0})


def steps_in(workdir, kind):
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [line["step"] for line in lines if line["kind"] == kind]


def test_lines_and_files(tmp_path, capsys):
    report(tmp_path, 0, 4, 3)
    out = capsys.readouterr().out
    assert "step 3/4  loss 2.000  top1  25.0%" in out and "images/s" in out
    assert "epoch 1  validation loss 1.000  top1 50.0%  top5 100.0%" in out
    assert steps_in(tmp_path, "train") == [1, 2, 3]
    assert steps_in(tmp_path, "validation") == [3]
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1


def test_resuming_drops_lines_of_repeated_steps(tmp_path):
    report(tmp_path, 0, 4, 3)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "kind": "tr')  # killed in the middle of a line
    report(tmp_path, 2, 4, 4)
    assert steps_in(tmp_path, "train") == [1, 2, 3, 4]
    assert steps_in(tmp_path, "validation") == [4]


@pytest.mark.parametrize(
    "content", ["", '{"step": 1, "kind": "train"}\n{"step": 9, "k']
)
def test_a_file_that_replaces_the_metrics_gets_the_next_lines(
    tmp_path, content, capsys
):
    metrics = tmp_path / "metrics.jsonl"
    with contextlib.closing(
        Reporter(tmp_path, first_step=0, steps=9, batch_size=4)
    ) as it:
        it.train(1, METRICS)
        metrics.rename(tmp_path / "other")
        metrics.write_text(content)
        for step in (2, 3):
            it.train(step, METRICS)
    assert steps_in(tmp_path, "train") == [1][: len(content)] + [2, 3]
    assert capsys.readouterr().out.count("warning: ") == 1


def test_utilisation_is_reported_where_the_peak_is_known(tmp_path, capsys):
    report(tmp_path, 0, 4, 2)
    assert "MFU" not in capsys.readouterr().out
    assert "mfu" not in (tmp_path / "metrics.jsonl").read_text()
    report(tmp_path, 2, 5, 4, peak_images=lambda: 1e9)
    assert "images/s, MFU 0%, " in capsys.readouterr().out
    line = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[4])
    assert line["mfu"] == line["images_per_second"] / 1e9


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    message = f"metrics of {tmp_path} cannot be written: No space left"
    with (
        pytest.raises(UserError, match=message),
        contextlib.closing(
            Reporter(tmp_path, first_step=0, steps=4, batch_size=4)
        ) as it,
    ):
        it._metrics.close()
        monkeypatch.setattr(it._metrics, "_path", Path("/dev/full"))
        monkeypatch.setattr(it._metrics, "_file", open("/dev/full", "w"))
        it.advance()
        it.train(1, METRICS)


def test_damaged_lines_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "kind": "train"}\n\0\0}\n[1]\n{"step": "x"}\n{"st')
    report(tmp_path, 1, 4, 2)
    assert steps_in(tmp_path, "train") == [1, 2]


def test_the_first_step_which_compiles_has_no_rate(tmp_path, capsys):
    rates = {"images_per_second", "seconds_per_step", "waiting_for_input"}
    report(tmp_path, 0, 4, 2)
    first, second, _ = map(
        json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines()
    )
    assert not rates & first.keys() and rates < second.keys()
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "compiling the first step"
    assert out[1] == "step 1/4  loss 2.000  top1  25.0%"
    assert "images/s" in out[2] and out[2].endswith(" left")


CODE = """
import sys, time
from pathlib import Path
from tokret.training.reporting import Reporter
it = Reporter(Path(sys.argv[1]), first_step=0, steps=128, batch_size=32)
for step in (1, 2):
    time.sleep(0.11)  # tqdm draws ten times a second
    it.advance()
    it.train(step, {"loss": 6.999, "top1": 0.453})
it.close()
"""


@pytest.mark.parametrize(("columns", "bar"), [(80, 10), (100, 30), (0, 0)])
def test_the_bar_and_its_text_fit_the_terminal(tmp_path, capfd, columns, bar):
    code = CODE.replace("sys.argv[1]", repr(str(tmp_path)))
    text = on_terminal(code, rows=40, columns=columns)
    out = capfd.readouterr().out
    if not columns:  # lines
        assert not text and out.startswith("compiling the first step\nstep 1/128 ")
        return
    assert not out
    drawn = text.replace("\r", "\n").split("\n")
    assert drawn[1].startswith("0/128|") and "| compiling the first step" in drawn[1]
    assert not any("compiling" in line for line in drawn[2:])
    last = [line for line in drawn if line.strip()][-1]
    left, rest = last.split("| ")[1].split(", ")
    assert re.fullmatch(r"\d\d:\d\d left", left)
    assert rest.startswith("loss 7.00 top1 45.3% ") and rest.endswith("% waiting")
    assert len(last) < columns and len(last.split("|")[1]) >= bar


CLOSED = """
import sys
from pathlib import Path
from tokret.training.reporting import Reporter

reporter = Reporter(Path(sys.argv[1]), first_step=0, steps=4, batch_size=4)
reporter.print_line("ready")
sys.stdin.read()  # until the reader is gone
for _ in range(2):
    reporter.print_line("a line")
    assert reporter.output_is_closed
"""


def test_a_closed_output_does_not_end_the_run(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", CLOSED, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        while process.stdout.readline() != b"ready\n":
            pass
        process.stdout.close()
        process.stdin.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0
