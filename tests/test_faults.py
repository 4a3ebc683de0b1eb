"""Runs that are killed or run out of disk: nothing is lost, nothing remains.

    TOKRET_KILLS=20 python -m pytest tests/test_faults.py -k killed

is the long form of the first test, which otherwise kills 3 times.
"""

import json
import os
import random
import resource
import shutil
import signal
import time

import jax
import numpy as np
import pytest

from tokret.training.checkpoint_arrays import SAVING
from tokret.training.checkpoints import list_measured, list_steps
from tokret.training.retention import steps_to_remove

KILLS = int(os.environ.get("TOKRET_KILLS", "3"))
EPOCHS = 3 + KILLS // 5
STEPS = 4 * EPOCHS  # of 32 photos in batches of 8
EXPECTED_FILES = {".lock", "checkpoints", "config.json", "metrics.jsonl", "tensorboard"}


# Where a run is killed: as a save starts, before a checkpoint gets its name, and where
# something is made durable, which is config.json first.
MOMENTS = (("os:replace", SAVING), ("os:mkdir", SAVING), ("os:fsync", ""))


@pytest.mark.slow
def test_killed_again_and_again_it_ends_as_if_uninterrupted(
    start, program, demo_arguments, trained, everything, tmp_path
):
    arguments = (*demo_arguments, f"--config.epochs={EPOCHS}")
    uninterrupted = trained
    if KILLS > 3:
        uninterrupted = tmp_path / "uninterrupted"
        status, out, err = program("train.py", *arguments, f"--workdir={uninterrupted}")
        assert status == 0, out + err
    workdir, chance = tmp_path / "killed", random.Random(0)
    often = ("--config.run.checkpoint_every=1", "--config.run.keep=1")
    arguments = ("train.py", *arguments, *often, f"--workdir={workdir}")
    incomplete = 0
    for kill in range(KILLS):
        moment = (*MOMENTS[kill % len(MOMENTS)], chance.randrange(1, 4))
        process = start(*arguments, signalled=("SIGKILL", *moment))
        out, err = process.communicate(timeout=600)
        assert process.returncode == -signal.SIGKILL, out + err
        incomplete += any((workdir / "checkpoints").glob(f"{SAVING}*"))
        assert set(path.name for path in workdir.glob("*")) <= EXPECTED_FILES | {
            "config.partial",
            "metrics.partial",
        }
    assert incomplete > 0 and list_steps(workdir)[-1:] != [STEPS]

    status, out, err = program(*arguments)
    assert status == 0 and not err.strip(), out + err
    jax.tree.map(
        np.testing.assert_array_equal, everything(workdir), everything(uninterrupted)
    )
    assert {path.name for path in workdir.iterdir()} == EXPECTED_FILES
    # The newest and the best of the uninterrupted run, and nothing half-written.
    measured = list_measured(uninterrupted)
    gone = steps_to_remove(measured, keep=1, keep_best="top1")
    left = sorted(path.name for path in (workdir / "checkpoints").iterdir())
    assert left == sorted(str(s) for s in list_steps(uninterrupted) if s not in gone)
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    steps = [line["step"] for line in lines if line["kind"] == "train"]
    assert steps == list(range(1, STEPS + 1))
    # Finished: the same command again changes nothing.
    status, out, err = program(*arguments)
    assert status == 0 and f"finished: {EPOCHS} epochs, {STEPS} steps" in out


@pytest.mark.slow
def test_a_full_disk_while_saving(
    start, program, refused, demo_arguments, trained, everything, tmp_path
):
    workdir = tmp_path / "run"
    arguments = ("train.py", *demo_arguments, f"--workdir={workdir}")
    process = start(*arguments)
    # No file may be larger: what a full disk does to a save, without a disk.
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (2**20, 2**20))
    out, err = process.communicate(timeout=600)
    wrong = (f"{workdir}/checkpoints/4 could not be written: File too", "beginning")
    refused((process.returncode, out, err), *wrong)
    assert list_steps(workdir) == []

    status, out, err = program(*arguments)
    assert status == 0 and "steps 0 to 12" in out, out + err
    jax.tree.map(
        np.testing.assert_array_equal, everything(workdir), everything(trained)
    )
    assert {path.name for path in workdir.iterdir()} == EXPECTED_FILES


@pytest.mark.slow
def test_photos_that_are_damaged_while_it_trains(
    start, refused, demo_arguments, data_dir, trained, tmp_path
):
    data, workdir = tmp_path / "data", tmp_path / "run"
    shutil.copytree(data_dir, data)
    more = ("--config.epochs=99999", "--config.run.checkpoint_every=1")
    process = start(
        "train.py",
        *demo_arguments,
        *more,
        f"--config.run.data_dir={data}",
        f"--workdir={workdir}",
    )
    deadline = time.monotonic() + 600
    while not list_steps(workdir) and time.monotonic() < deadline:
        time.sleep(0.01)
        assert process.poll() is None, process.communicate()
    for path in data.rglob("*.array_record*"):
        os.truncate(path, path.stat().st_size // 2)
    out, err = process.communicate(timeout=600)
    refused((process.returncode, out, err), "cannot be decoded", "record ", "the disk")
    assert {path.name for path in workdir.iterdir()} == EXPECTED_FILES
    assert not list(workdir.rglob(f"{SAVING}*"))
