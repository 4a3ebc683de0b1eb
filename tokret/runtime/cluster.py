"""Several processes that work together: one a host, or one a device.

The platform announces the other processes (TPU pods, Slurm, Open MPI, indexed jobs of
Kubernetes: `jax.distributed` reads it), or arguments do; otherwise a process is alone.
Only the first process has a standard output; that of the others is closed.

A process that fails notifies the others, which end too: they would wait for it in their
next sum over devices. If one is killed, JAX ends the others when its heartbeat has been
missing for 100 seconds.
"""

import contextlib
import importlib.util
import itertools
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from tokret.errors import StoppedError, UserError
from tokret.io.remote.urls import with_urls
from tokret.names import one_line
from tokret.runtime import coordinator as jax_coordinator
from tokret.runtime.coordinator import process_count, process_index
from tokret.runtime.ending import exit_status

Result = TypeVar("Result")

CONNECTING = 300.0  # seconds until all must have met
PATIENCE = 7 * 24 * 3600.0  # seconds to wait: the first may prepare a dataset
LISTENING = 1.0  # seconds between checks whether another process failed
LINGERING = 3.0  # seconds that a failed process stays, for the others to notice
FAILED = "tokret/failed"
MAX_TEXT = 512  # bytes of a process's text in `gather_texts`

_texts = itertools.count()
_over = threading.Event()  # failures of other processes no longer matter


def is_announced(environment: Mapping[str, str]) -> bool:
    """Whether a platform's own variables may announce several processes."""
    mpi = ("OMPI_MCA_orte_hnp_uri", "OMPI_COMM_WORLD_SIZE")
    for name, count in (mpi, ("SLURM_STEP_NODELIST", "SLURM_NTASKS")):
        if name in environment:
            return environment.get(count, "1") != "1"
    # The last is set by JAX itself, on a machine with a TPU.
    tpu = ("TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES", "TPU_ML_PLATFORM")
    if any(name in environment for name in tpu):
        return True
    indexed = {"KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"} <= environment.keys()
    if indexed and importlib.util.find_spec("kubernetes") is None:
        print(  # noqa: T201
            "warning: an indexed job of Kubernetes, but the package kubernetes is not "
            "installed, so this process works alone: pip install 'jax[k8s]' to join "
            "the others, or set num_processes to 1",
            file=sys.stderr,
        )
        return False
    return indexed


def join(
    coordinator: str | None,
    count: int | None,
    index: int | None,
    *,
    seconds: float = CONNECTING,
) -> None:
    """Joins the other processes, if there are any; before any use of devices.

    Args:
      coordinator: HOST:PORT of the first process.
      count: the number of processes; 1 without the others: work alone, whatever the
        platform announces.
      index: this process's, from 0. All three are given, or the platform's are used.
      seconds: until all must have joined; then the process ends, with status 2.

    Raises:
      UserError: for wrong values, or if the others cannot be joined.
    """
    if count == 1 and coordinator is None and not index:
        return
    given = {"coordinator": coordinator, "num_processes": count, "process_id": index}
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == 3:
        if not is_announced(os.environ):
            return
    elif missing:
        raise UserError(
            f"{' is missing, and '.join(missing)} is missing: coordinator (HOST:PORT), "
            "num_processes and process_id go together"
        )
    else:
        check_arguments(str(coordinator), int(count or 0), int(index or 0))
    others = f"the coordinator {coordinator}" if coordinator else "other processes"
    timer = threading.Timer(seconds, _give_up, (others, count, index, seconds))
    timer.daemon = True
    timer.start()
    try:
        jax.distributed.initialize(
            coordinator,
            count,
            index,
            cluster_detection_method="deactivate" if coordinator else None,
            # JAX's own timeout is a stack trace: ours comes first.
            initialization_timeout=int(seconds) + 60,
        )
    except (RuntimeError, ValueError) as error:
        words = " ".join(str(error).split())
        if len(missing) == 3 and "coordinator_address" in words:
            return  # nothing was announced after all
        raise UserError(f"{others} cannot be joined: {words[:300]}") from error
    finally:
        timer.cancel()
    if process_count() > 1:
        if not is_first():
            sys.stdout = open(os.devnull, "w")  # for good
        threading.Thread(target=_listen, daemon=True).start()


def check_arguments(coordinator: str, count: int, index: int) -> None:
    """Checks the arguments of `join`, all given; UserError names the wrong one."""
    match = re.fullmatch(r"(?:\[[0-9A-Fa-f:.]+\]|[^\s:\[\]/]+):(\d{1,5})", coordinator)
    if not match or not 1 <= int(match[1]) <= 65535:
        raise UserError(
            f"coordinator is {coordinator}; it must be HOST:PORT, as 10.0.0.1:1234"
        )
    if count < 1:
        raise UserError(f"num_processes is {count}; it must be at least 1")
    if not 0 <= index < count:
        raise UserError(
            f"process_id is {index}; it must be in [0, {count - 1}], for num_processes "
            f"of {count}"
        )


def _give_up(others: str, count: int | None, index: int | None, seconds: float) -> None:
    """Ends the process from the timer's thread, without waiting for other processes."""
    who = "" if index is None else f" by process {index} of {count}"
    print(  # noqa: T201
        f"error: {others} could not be reached in {seconds:.0f} seconds{who}; start "
        "all processes, and check coordinator, num_processes and process_id",
        file=sys.stderr,
        flush=True,
    )
    os._exit(2)


def _listen() -> None:
    """Ends this process when another has failed."""
    client = jax_coordinator.client()
    while not _over.wait(LISTENING):
        try:
            status, words = client.key_value_try_get(FAILED).split(" ", 1)
        except Exception:  # none failed, or the coordinator has ended
            continue
        if _over.is_set():
            return
        if is_first():
            print(f"error: {one_line(words)}", file=sys.stderr, flush=True)  # noqa: T201
            time.sleep(LINGERING)  # it is the coordinator of the others
        os._exit(int(status))


def together(program: Callable[[], None]) -> int:
    """Runs a program that joins others, as `ending.exit_status`.

    If one of several fails, it notifies the others and ends here, since JAX's own end
    would wait for them.
    """
    failures: list[BaseException] = []

    def watched() -> None:
        try:
            program()
        except BaseException as error:
            # For a signal all of them stop, at the same step.
            if process_count() > 1 and type(error) is not StoppedError:
                failures.append(error)
                if not isinstance(error, UserError):
                    # Perhaps a consequence of another's, which is then reported first.
                    time.sleep(LINGERING)
            raise

    try:
        status = exit_status(watched)
    except Exception:
        if not failures:
            raise
        traceback.print_exc()
        status = 1
    if failures:
        _over.set()
        words = with_urls(" ".join(f"{failures[0]}".split()))[:MAX_TEXT]
        words = words or "interrupted"
        notice = f"{status} process {process_index()} failed: {words}"
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # another was faster
            jax_coordinator.client().key_value_set(FAILED, notice)
        time.sleep(LINGERING)
        sys.stdout.flush()
        os._exit(status)
    return status


def is_first() -> bool:
    """Whether this process writes for all."""
    return process_index() == 0


def wait(name: str) -> None:
    """Waits for all processes, as long as it takes; the name is used once, by all."""
    if process_count() > 1:
        client = jax_coordinator.client()
        client.wait_at_barrier(f"tokret/{name}", int(PATIENCE * 1000))


def wait_for_first() -> None:
    """Waits at the end of a program whose last work is the first process's alone."""
    if process_count() > 1:
        jax.local_devices()  # the first gets its own only when all have theirs
        wait("the end")


def first_alone(make: Callable[[], Result], name: str) -> Result:
    """Prepares files in the first process, then in the others, which find them made.

    The name is used once.
    """
    if not is_first():
        wait(name)
    made = make()
    if is_first():
        wait(name)
    return made


def compiled_together(step: Callable[..., Result], name: str) -> Callable[..., Result]:
    """Makes all processes wait, before the first call, until each has compiled it.

    One may load a program that another has to compile, and sums over CPUs time out
    after 30 seconds. The step is made by `jax.jit`; the name is used once.
    """
    if process_count() == 1:
        return step
    compiled = False

    def call(*arguments: Any) -> Result:
        nonlocal compiled
        if not compiled:
            step.lower(*arguments).compile()  # type: ignore[attr-defined]
            wait(f"{name} is compiled")
            compiled = True
        return step(*arguments)

    return call


def gather_ints(numbers: Sequence[int]) -> np.ndarray:
    """Returns the numbers, int32, of all processes, [processes, numbers]."""
    mine = np.array(numbers, np.int32)
    if process_count() == 1:
        return mine[None]
    return np.asarray(multihost_utils.process_allgather(mine))


def gather_texts(text: str) -> list[str]:
    """Waits for all, and returns each process's text, cut to `MAX_TEXT` UTF-8 bytes."""
    if process_count() == 1:
        return [text]
    wait(f"texts {next(_texts)}")
    mine = np.frombuffer(text.encode()[:MAX_TEXT].ljust(MAX_TEXT, b"\0"), np.uint8)
    rows = np.asarray(multihost_utils.process_allgather(mine))
    return [row.tobytes().rstrip(b"\0").decode(errors="replace") for row in rows]
