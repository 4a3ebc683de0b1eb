"""Runs in object storage: two hosts without a common disk, killed at any request.

    TOKRET_KILLS=100 python -m pytest tests/test_object_storage.py -k killed

is the long form; by default there are ten kills.
"""

import json
import os
import random
import signal
import socket
import threading

import jax
import numpy as np
import pytest

from tests.storage.proxy import Fault, Request, seeded
from tokret.io.remote import cache_folder, objects, urls
from tokret.io.remote.fetching import fetch
from tokret.training.checkpoints import list_steps
from tokret.training.weights import find_checkpoint, load_weights

KILLS = int(os.environ.get("TOKRET_KILLS", "10"))
EPOCHS = 4 + KILLS // 3
STEPS = 2 * EPOCHS  # of 16 photos in batches of 8
FAULTS = (
    Fault("cut"),
    Fault("cut answer"),
    Fault("answer", 503),
    Fault("lost", 503),
    Fault("delay", seconds=0.2),
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def arguments(demo_arguments):
    return (
        "train",
        *demo_arguments,
        f"--config.epochs={EPOCHS}",
        "--config.data.photos=4",
        "--config.model.dim=32",
        "--config.model.width=16",
        "--config.model.refinement_layers=0",
        "--config.evaluation.batch_size=8",
        "--config.mesh.model=2",
        "--config.model.dropout=0.1",
        "--config.updates.ema_decay=0.5",
        "--config.run.checkpoint_every=1",
        "--config.run.keep=1",
    )


@pytest.fixture
def hosts(start, tmp_path):
    """Returns a function that starts a command as on hosts without a common disk."""

    def started(*command, count=2, environment=None):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        met = [f"--coordinator=127.0.0.1:{port}", f"--num_processes={count}"]
        return [
            start(
                *command,
                *(met + [f"--process_id={i}"] if count > 1 else []),
                devices=8 // count,
                **{cache_folder.CACHE: str(tmp_path / f"host{i}")},
                **(environment or {}),
            )
            for i in range(count)
        ]

    return started


def ends(processes):
    outputs = [process.communicate(timeout=300) for process in processes]
    return [(p.returncode, *o) for p, o in zip(processes, outputs, strict=True)]


def succeed(processes):
    found = ends(processes)
    for status, out, err in found:
        errors = [line for line in err.splitlines() if "[Gloo]" not in line]
        assert status == 0, [*out.splitlines(), *errors][-20:]
    return found[0]


def read_lines(*paths):
    text = "".join(path.read_text() for path in sorted(paths))
    return [json.loads(line) for line in text.splitlines()]


class Killer:
    """A proxy's plan: at a request of a number, processes are killed."""

    def __init__(self, number, passes_on):
        self.left, self.passes_on = number, passes_on
        self.processes, self.lock = [], threading.Lock()

    def __call__(self, request: Request) -> Fault | None:
        with self.lock:
            self.left -= 1
            if self.left >= 0:
                return None
            for process in self.processes:
                process.kill()
        return None if self.passes_on else Fault("cut")


@pytest.fixture(scope="module")
def on_disk(start, arguments, tmp_path_factory):
    """The folder of a run on a disk by two processes that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("run") / "run"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    met = (f"--coordinator=127.0.0.1:{port}", "--num_processes=2")
    command = (*arguments, f"--workdir={workdir}", *met)
    succeed([start(*command, f"--process_id={i}", devices=4) for i in range(2)])
    return workdir


@pytest.fixture(scope="module")
def check():
    """Returns a check that a bucket has the run of a disk, and nothing else."""

    def compare(url, workdir):
        copy = fetch(urls.local_path(url))
        ours, theirs = (
            load_weights(find_checkpoint(run))[0] for run in (copy, workdir)
        )
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)
        assert list_steps(copy) == list_steps(workdir)
        contents = {name.partition("/")[0] for name in objects.list_names(url)}
        assert contents == {"checkpoints", "config.json", "metrics", "tensorboard"}
        for step in list_steps(copy):
            folder = copy / "checkpoints" / str(step)
            sums = (folder / "SHA256SUMS").read_text().splitlines()
            named = {line.split("  ", 1)[1] for line in sums if "  " in line}
            files = {p.relative_to(folder).as_posix() for p in folder.rglob("*")}
            left = {name for name in files if (folder / name).is_file()} - named
            assert left == {"SHA256SUMS"}
        ours, theirs = (
            [(line["kind"], line["step"], line["loss"]) for line in lines]
            for lines in (
                read_lines(*(copy / "metrics").iterdir()),
                read_lines(workdir / "metrics.jsonl"),
            )
        )
        assert sorted({*ours}) == sorted({*theirs}) == sorted(theirs)

    return compare


def test_killed_again_and_again_it_ends_as_on_a_disk(
    hosts, gcs, arguments, on_disk, check
):
    url, chance, kills = f"{gcs.url}/run", random.Random(0), 0
    command = (*arguments, f"--workdir={url}")
    for _ in range(KILLS):
        killer = Killer(chance.randrange(1, 120), chance.random() < 0.5)
        gcs.proxy.plan = killer
        killer.processes = hosts(*command, environment=gcs.environment)
        kills += all(end[0] == -signal.SIGKILL for end in ends(killer.processes))
    assert kills == KILLS
    gcs.proxy.reset()
    succeed(hosts(*command, environment=gcs.environment))
    check(url, on_disk)


def test_a_storage_that_fails_again_and_again_loses_nothing(
    hosts, gcs, arguments, on_disk, check
):
    url = f"{gcs.url}/run"
    gcs.proxy.plan = seeded(1, 0.04, FAULTS)
    _, out, err = succeed(
        hosts(*arguments, f"--workdir={url}", environment=gcs.environment)
    )
    gcs.proxy.reset()
    check(url, on_disk)
