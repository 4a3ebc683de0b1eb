"""A state of two processes without a common disk, copied to the first's memory."""

import os
import subprocess
import sys

import pytest

from tests.storage.servers import free_port

MEMBER = """
import sys
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from tokret.runtime import cluster
from tokret.training.remote_checkpoints import copy_to_first

index, port = sys.argv[1:]
cluster.join(f"127.0.0.1:{port}", 2, int(index))
mesh = Mesh(np.array(jax.devices()).reshape(2, 4), ("data", "model"))
expected = np.arange(256, dtype=np.float32).reshape(16, 16)
specs = [P(), P("data"), P("model"), P(("data", "model")), P(None, "data")]
state = [
    jax.make_array_from_callback(
        expected.shape, NamedSharding(mesh, spec), lambda piece: expected[piece]
    )
    for spec in specs
]
copied = copy_to_first(state)
if int(index):
    assert copied is None
else:
    for array in copied:
        np.testing.assert_array_equal(array, expected)
"""


@pytest.mark.slow
def test_pieces_that_other_processes_have_are_gathered():
    port = free_port()
    members = [
        subprocess.Popen(
            [sys.executable, "-c", MEMBER, str(index), str(port)],
            env=os.environ
            | {"PYTHONPATH": os.pathsep.join(sys.path), "XLA_FLAGS": ""}
            | {"JAX_NUM_CPU_DEVICES": "4"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    ends = [member.communicate(timeout=600)[1] for member in members]
    assert [member.returncode for member in members] == [0, 0], ends
