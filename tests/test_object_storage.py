"""Runs in object storage: two hosts without a common disk, killed at any request.

    TOKRET_KILLS=100 python -m pytest tests/test_object_storage.py -k killed

is the long form; by default there are ten kills.
"""

import json
import os
import random
import re
import signal
import threading
import time

import jax
import numpy as np
import pytest

from tests.storage.proxy import Fault, Request, seeded
from tests.storage.servers import free_port
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


@pytest.fixture(scope="module")
def hosts(start, tmp_path_factory):
    """Returns a function that starts a command as on hosts without a common disk."""

    copies, running = tmp_path_factory.mktemp("copies"), []

    def started(*command, count=2, **environment):
        met = [f"--coordinator=127.0.0.1:{free_port()}", f"--num_processes={count}"]
        processes = [
            start(
                *command,
                *(met + [f"--process_id={i}"] if count > 1 else []),
                devices=4 if count > 1 else 1,
                **{cache_folder.CACHE: str(copies / f"host{i}")},
                **environment,
            )
            for i in range(count)
        ]
        running.extend(processes)
        return processes

    yield started
    for process in running:
        process.kill()
        process.communicate()


def ends(processes):
    outputs = [process.communicate(timeout=600) for process in processes]
    return [(p.returncode, *o) for p, o in zip(processes, outputs, strict=True)]


def succeed(processes):
    found = ends(processes)
    for status, out, err in found:
        errors = [line for line in err.splitlines() if "[Gloo]" not in line]
        assert status == 0, [*out.splitlines(), *errors][-20:]
    return found[0]


def wait_for(condition, process):
    last = time.monotonic() + 600
    while not condition():
        if process.poll() is not None or time.monotonic() > last:
            process.kill()
            raise AssertionError(ends([process]))
        time.sleep(0.1)


def list_sums(url):
    """Names of the digests of checkpoints, which come last; the oldest may be gone."""
    return [name for name in objects.list_objects(url) if name.endswith("SHA256SUMS")]


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
def on_disk(hosts, arguments, tmp_path_factory):
    """The folder of a run on a disk by two processes that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("run") / "run"
    succeed(hosts(*arguments, f"--workdir={workdir}"))
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
        killer.processes = hosts(*command, **gcs.environment)
        statuses = [end[0] for end in ends(killer.processes)]
        if statuses == [0, 0]:  # complete, after fewer requests
            break
        # The other may notice it before it is killed itself.
        assert -signal.SIGKILL in statuses
        kills += 1
    assert kills > 0
    gcs.proxy.reset()
    succeed(hosts(*command, **gcs.environment))
    check(url, on_disk)

    # Evaluated by both, killed once: as on a disk.
    evaluate = ("eval", f"--workdir={url}", "--no-report")
    killer = Killer(25, passes_on=True)
    gcs.proxy.plan = killer
    killer.processes = hosts(*evaluate, **gcs.environment)
    assert ends(killer.processes)[0][0] == -signal.SIGKILL
    gcs.proxy.reset()
    _, out, _ = succeed(hosts(*evaluate, **gcs.environment))
    assert f"written: {url}/eval" in out
    succeed(hosts("eval", f"--workdir={on_disk}", "--no-report"))
    ours = json.loads(objects.read_object(f"{url}/eval/results.json", 2**20))
    theirs = json.loads((on_disk / "eval/results.json").read_text())
    assert ours["benchmarks"] == theirs["benchmarks"]


def test_a_storage_that_fails_again_and_again_loses_nothing(
    hosts, gcs, arguments, on_disk, check
):
    url = f"{gcs.url}/run"
    gcs.proxy.plan = seeded(1, 0.04, FAULTS)
    succeed(hosts(*arguments, f"--workdir={url}", **gcs.environment))
    gcs.proxy.reset()
    check(url, on_disk)


def test_s3_one_process_that_is_killed(hosts, s3, demo_arguments, trained, everything):
    url, chance = f"{s3.url}/run", random.Random(1)
    often = ("--config.run.checkpoint_every=1", "--config.run.keep=1")
    command = ("train", *demo_arguments, *often, f"--workdir={url}")
    for _ in range(3):
        killer = Killer(chance.randrange(1, 100), chance.random() < 0.5)
        s3.proxy.plan = killer
        killer.processes = hosts(*command, count=1, **s3.environment)
        assert ends(killer.processes)[0][0] == -signal.SIGKILL
    s3.proxy.reset()
    succeed(hosts(*command, count=1, **s3.environment))
    copy = fetch(urls.local_path(url))
    jax.tree.map(np.testing.assert_array_equal, everything(copy), everything(trained))


def test_a_second_run_is_refused_and_a_signal_saves(hosts, s3, demo_arguments, refused):
    url = f"{s3.url}/run"
    command = ("train", *demo_arguments, f"--workdir={url}", "--config.epochs=99999")
    (first,) = hosts(*command, count=1, **s3.environment)
    wait_for(lambda: objects.find_object(f"{url}/.lease"), first)
    (end,) = ends(hosts(*command, count=1, **s3.environment))
    refused(end, f"another run is training in {url}", f"process {first.pid} on ")
    wait_for(lambda: list_sums(f"{url}/checkpoints"), first)
    first.send_signal(signal.SIGTERM)
    ((status, _, err),) = ends([first])
    assert status == 75, err
    saved = int(re.search(r"stopped after step (\d+)", err)[1])
    assert objects.find_object(f"{url}/checkpoints/{saved}/SHA256SUMS")
    assert objects.find_object(f"{url}/.lease") is None
    (again,) = hosts(*command, count=1, **s3.environment)
    line = next(line for line in again.stdout if "steps" in line)
    assert f"resumes from checkpoint {saved}" in line
    again.kill()
    ends([again])
