"""Two processes of four devices, started as on two hosts, against one of eight."""

import json
import shutil

import numpy as np
import pytest

from tests.storage.servers import free_port
from tokret.retrieval.store.reading import read_store
from tokret.training.checkpoints import list_steps

STEPS = 4  # 2 epochs of 16 photos in batches of 8

# The biases before the head's batch norms have no gradient but rounding, of which AdamW
# makes whole steps; in training the norms take them out, in validation not quite.
VALIDATION = 5e-3

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def arguments(demo_arguments):
    return (
        *demo_arguments,
        "--config.epochs=2",
        "--config.data.photos=4",
        "--config.model.dim=32",
        "--config.model.width=16",
        "--config.model.refinement_layers=0",
        "--config.evaluation.batch_size=8",
        "--config.mesh.model=2",
        "--config.model.dropout=0.1",
        "--config.updates.ema_decay=0.5",
    )


@pytest.fixture(scope="module")
def pair(start):
    """Returns a function that starts a program as two processes."""

    def started(*command, second=()):
        met = (f"--coordinator=127.0.0.1:{free_port()}", "--num_processes=2")
        return [
            start(*command, *met, f"--process_id={i}", devices=4, signalled=signalled)
            for i, signalled in enumerate(((), second))
        ]

    return started


def ends(processes):
    """Statuses, outputs and error outputs."""
    outputs = [process.communicate(timeout=600) for process in processes]
    return [(p.returncode, *o) for p, o in zip(processes, outputs, strict=True)]


def lines(workdir):
    found = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    timings = ("images_per_second", "seconds_per_step", "waiting_for_input")
    return [{k: v for k, v in line.items() if k not in timings} for line in found]


@pytest.fixture(scope="module")
def whole(start, arguments, tmp_path_factory):
    """The folder of a run of one process."""
    workdir = tmp_path_factory.mktemp("run") / "whole"
    process = start("train.py", *arguments, f"--workdir={workdir}", devices=8)
    (end,) = ends([process])
    assert end[0] == 0, end
    return workdir


@pytest.fixture(scope="module")
def halves(pair, whole, arguments, tmp_path_factory):
    """The folder of a run of two, one of which got Ctrl-C, and its ends."""
    workdir = tmp_path_factory.mktemp("run") / "halves"
    command = ("train.py", *arguments, f"--workdir={workdir}")
    # Once signals stop the run, before the first step.
    place = "tokret.training.checkpoints:Checkpoints.recorded_config"
    stopped = ends(pair(*command, second=("SIGINT", place, "", 1)))
    reached = list_steps(workdir)
    return workdir, reached, stopped, ends(pair(*command))


def test_after_a_signal_to_one_both_save_the_same_step(halves):
    workdir, reached, (first, second), again = halves
    assert (first[0], second[0]) == (75, 130), first + second
    assert f"stopped after step {reached[-1]} of {STEPS}" in first[2]
    assert 1 <= reached[-1] < STEPS
    assert again[0][0] == again[1][0] == 0, again[0][2][-3000:] + again[1][2][-3000:]
    assert f"steps {reached[-1]} to {STEPS}" in again[0][1]
    for end in (second, again[1]):
        assert "step" not in end[1] and "Traceback" not in end[2]


def test_two_learn_what_one_learns(halves, whole):
    workdir = halves[0]
    assert list_steps(workdir)[-1] == STEPS
    ours, theirs = lines(workdir), lines(whole)
    steps = {(line["step"], line["kind"]): line for line in theirs}
    for line in ours:
        if (line["step"], line["kind"]) not in steps:
            continue  # where it was stopped
        expected = steps[line["step"], line["kind"]]
        rel = 1e-5 if line["kind"] == "train" else VALIDATION
        for name in ("loss", "top1", "top5"):
            assert line[name] == pytest.approx(expected[name], rel=rel), (line, name)
    assert steps.keys() <= {(line["step"], line["kind"]) for line in ours}


@pytest.fixture(scope="module")
def evaluated(halves, start, pair, tmp_path_factory):
    """Folders of evaluations of one run by one process and by two, and their ends."""
    root = tmp_path_factory.mktemp("evaluated")
    folders = [shutil.copytree(halves[0], root / name) for name in ("one", "two")]
    options = ("--baselines", "--rerank=aqe:n=2")
    one, two = (("eval.py", f"--workdir={folder}", *options) for folder in folders)
    (alone,) = ends([start(*one, "--no-report", devices=8)])
    assert alone[0] == 0, alone
    return [folder / "eval" for folder in folders], ends(pair(*two))


def test_two_measure_what_one_measures(evaluated):
    (one, two), ((status, out, err), (other, silent, _)) = evaluated
    assert status == other == 0, err[-3000:]
    assert "written: " in out and "written" not in silent
    ours, theirs = (json.loads((f / "results.json").read_text()) for f in (two, one))
    for measured in (ours, theirs):
        systems = [measured["benchmarks"], *measured["baselines"].values()]
        for found in (found for of in systems for found in of.values()):
            for step in found["reranked"]["steps"]:
                del step["seconds"], step["peak_bytes"]
    assert ours["benchmarks"] == theirs["benchmarks"]
    assert ours["baselines"] == theirs["baselines"]
    assert (two / "report.html").exists() and (two / "queries.png").exists()


def test_two_extract_the_descriptors_of_one(evaluated):
    one, two = evaluated[0]
    stores = sorted(path.parent for path in one.glob("descriptors/**/descriptors.npy"))
    assert len(stores) == 4  # trained, untrained; queries, database
    for folder in stores:
        theirs, ours = read_store(folder), read_store(two / folder.relative_to(one))
        assert ours.names == theirs.names and ours.bad == theirs.bad
        np.testing.assert_allclose(ours.descriptors, theirs.descriptors, atol=2e-6)
