"""Processes that join each other, or do not, and how one's failure ends them all."""

import os
import subprocess
import sys

import pytest

from tests.storage.servers import free_port
from tokret.errors import UserError
from tokret.runtime import cluster

SLURM = {"SLURM_STEP_NODELIST": "n[1-2]", "SLURM_NTASKS": "2"}
OMPI = {"OMPI_MCA_orte_hnp_uri": "1.0;tcp://10.0.0.1:3", "OMPI_COMM_WORLD_SIZE": "2"}
KUBERNETES = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}


@pytest.mark.parametrize(
    ("environment", "announced"),
    [
        ({}, False),
        (SLURM, True),
        (SLURM | {"SLURM_NTASKS": "1"}, False),
        (OMPI, True),
        (OMPI | {"OMPI_COMM_WORLD_SIZE": "1"}, False),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, True),
        (KUBERNETES, False),
    ],
)
def test_what_platforms_announce(environment, announced, capsys):
    assert cluster.is_announced(environment) is announced
    assert capsys.readouterr() == ("", "")


def test_an_indexed_job_of_kubernetes_needs_a_package(monkeypatch, capsys):
    installed = []
    monkeypatch.setattr(
        cluster.importlib.util, "find_spec", lambda name: installed or None
    )
    environment = KUBERNETES | {"JOB_COMPLETION_INDEX": "0"}
    assert not cluster.is_announced(environment)
    (line,) = capsys.readouterr().err.splitlines()
    assert "jax[k8s]" in line and "num_processes to 1" in line
    installed.append("found")
    assert cluster.is_announced(environment)


def test_alone_whatever_the_platform_announces(monkeypatch):
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    cluster.join(None, 1, None)
    assert cluster.is_first() and cluster.process_count() == 1
    cluster.wait("nobody")
    cluster.wait_for_first()
    assert cluster.compiled_together(len, "length") is len
    assert cluster.first_alone(lambda: 3, "nothing") == 3
    assert cluster.gather_ints([1, 2]).tolist() == [[1, 2]]
    assert cluster.gather_texts("alone") == ["alone"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("h:1", None, None), "num_processes is missing, and process_id is missing"),
        ((None, None, 0), "coordinator is missing, and num_processes is missing"),
        ((None, 2, 0), "coordinator is missing: "),
        (("h:1", 2, 2), r"process_id is 2; it must be in \[0, 1\]"),
        (("h:1", 2, -1), "process_id is -1"),
        (("h:1", 0, 0), "num_processes is 0"),
        (("h", 2, 0), "coordinator is h; it must be HOST:PORT"),
        (("h:99999", 2, 0), "coordinator is h:99999"),
        ((":1", 2, 0), "coordinator is :1"),
    ],
)
def test_wrong_arguments_are_refused(arguments, words):
    with pytest.raises(UserError, match=words):
        cluster.join(*arguments)


def test_addresses_that_are_taken():
    for address in ("10.0.0.1:1234", "node-7.cluster:1", "[fe80::1]:65535"):
        cluster.check_arguments(address, 2, 1)


def test_the_flags_are_the_programs_own(program, refused):
    arguments = ("--workdir=w", "--coordinator=h:1", "--num_processes=2")
    refused(program("eval.py", *arguments), "process_id is missing")


MEMBER = """
import sys
from tokret.runtime import cluster
from tokret.errors import UserError
from tokret.io.remote.retrying import UnavailableError
index, port, seconds, fate = sys.argv[1:]
index = int(index)
cluster.LISTENING, cluster.LINGERING = 0.2, 0.8

def program():
    cluster.join(f"127.0.0.1:{port}", 2, index, seconds=float(seconds))
    from jax.experimental import multihost_utils
    assert cluster.first_alone(lambda: index, "made") == index
    assert cluster.gather_ints([index, 5]).tolist() == [[0, 5], [1, 5]]
    assert cluster.gather_texts("é" * 900 * index) == ["", "é" * 256]
    print("printed by", index)
    if fate != "well" and index:
        errors = {"badly": UserError, "unstored": UnavailableError}
        raise errors.get(fate, ValueError)("a disk is full")
    multihost_utils.sync_global_devices("the end")

sys.exit(cluster.together(program))
"""


@pytest.fixture
def members():
    """Returns a function that runs some of two processes to their ends."""

    def run(fate, indices=(0, 1), seconds=60):
        port = free_port()
        started = [
            subprocess.Popen(
                [sys.executable, "-c", MEMBER, str(i), str(port), str(seconds), fate],
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for i in indices
        ]
        ends = [process.communicate(timeout=600) for process in started]
        return [(p.returncode, *end) for p, end in zip(started, ends, strict=True)]

    return run


@pytest.mark.parametrize("index", [0, 1])
def test_a_process_without_the_others_gives_up(members, refused, index):
    (end,) = members("well", (index,), seconds=1)
    refused(end, "could not be reached in 1 seconds", "coordinator", f"process {index}")


def test_the_first_prints_for_all(members):
    first, second = members("well")
    assert first[0] == second[0] == 0, first + second
    assert "printed by 0" in first[1] and "printed by" not in second[1]


@pytest.mark.parametrize(
    ("fate", "status"), [("badly", 2), ("wrongly", 1), ("unstored", 75)]
)
def test_one_failure_ends_all(members, fate, status):
    first, second = members(fate)
    assert first[0] == second[0] == status, first + second
    words = "a disk is full"
    assert f"error: process 1 failed: {words}" in first[2]
    assert "Traceback" not in first[2]
    assert words in second[2] and ("Traceback" in second[2]) is (status == 1)
