"""What tokret uses of a private module of JAX; an upgrade may move it."""

import subprocess
import sys

from tests.storage.servers import free_port
from tokret.runtime import coordinator

# The client's methods that tokret calls.
METHODS = (
    *("key_value_set", "key_value_try_get", "key_value_delete", "wait_at_barrier"),
    *("key_value_set_bytes", "blocking_key_value_get_bytes"),
)
PROGRAM = """
import sys
import jax
from tokret.runtime import coordinator

jax.distributed.initialize(f"127.0.0.1:{sys.argv[1]}", 1, 0)
assert (coordinator.process_count(), coordinator.process_index()) == (1, 0)
client = coordinator.client()
print(*(name for name in sys.argv[2:] if not hasattr(client, name)))
"""


def test_a_process_alone_has_a_number_and_no_client():
    assert coordinator.client() is None
    assert (coordinator.process_count(), coordinator.process_index()) == (1, 0)


def test_this_jax_has_all_that_tokret_uses_of_its_client():
    port = free_port()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(port), *METHODS],
        capture_output=True,
        text=True,
        timeout=600,
    )
    message = "adapt tokret/runtime/coordinator.py to this version of JAX: "
    assert done.returncode == 0, message + done.stderr
    assert not done.stdout.split(), message + "missing: " + done.stdout
