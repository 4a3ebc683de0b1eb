"""JAX's client of the coordinator, through which several processes exchange values.

`jax.distributed` starts it, and JAX has no public name for it: this is the only module
that imports a private one of JAX. Checked with jax 0.10.2; tests/runtime/
test_coordinator.py fails where an upgrade removes what is used.
"""

from typing import Any

from jax._src import distributed


def client() -> Any:
    """Returns the client; None where this process works alone."""
    return distributed.global_state.client


def process_count() -> int:
    """Returns the number of processes, without initialising devices."""
    return int(distributed.global_state.num_processes)


def process_index() -> int:
    """Returns this process's number, from 0, without initialising devices."""
    return int(distributed.global_state.process_id)
