"""Several processes that work together: one a host, or one a device.

The platform tells a process who the others are (TPU pods, Slurm, Open MPI, indexed jobs
of Kubernetes: `jax.distributed` reads it), or flags do. Without either a process is
alone. The first process speaks for all: the standard output of the others is closed.

A process that fails says so to the others, which end too: without that they would wait
for it in their next sum over devices. One that is killed says nothing; JAX ends the
others when its heartbeat has been missing for 100 seconds.
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
from typing import Any, NoReturn, TypeVar

import jax
import numpy as np
from jax._src import distributed  # the client has no public name
from jax.experimental import multihost_utils

from tokret.errors import StoppedError, UserError, exit_status

Result = TypeVar("Result")

CONNECTING = 300.0  # seconds until all must have met
PATIENCE = 7 * 24 * 3600.0  # seconds to wait: the first may prepare a dataset
LISTENING = 1.0  # seconds between looks at whether another process failed
LINGERING = 3.0  # seconds that a failed process stays, for the others to hear of it
FAILED = "tokret/failed"
WORDS = 512  # bytes of text that a process shares

_words = itertools.count()
_over = threading.Event()  # this process needs to hear of no failure any more


def is_told(environment: Mapping[str, str]) -> bool:
    """Says whether a platform's own variables may tell of several processes."""
    for name, count in (
        ("OMPI_MCA_orte_hnp_uri", "OMPI_COMM_WORLD_SIZE"),
        ("SLURM_STEP_NODELIST", "SLURM_NTASKS"),
    ):
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
            "there, so this process works alone: pip install 'jax[k8s]' to join the "
            "others, or give --num_processes=1",
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
      coordinator: HOST:PORT at which the first process can be reached.
      count: the number of processes; 1 alone: work alone, whatever the platform tells.
      index: this process's, from 0. All three, or what the platform tells.
      seconds: until all must have met; then the process ends, with status 2.

    Raises:
      UserError: for wrong values, or if the others cannot be joined.
    """
    if count == 1 and coordinator is None and not index:
        return
    given = {"coordinator": coordinator, "num_processes": count, "process_id": index}
    missing = [f"--{name}" for name, value in given.items() if value is None]
    if len(missing) == 3:
        if not is_told(os.environ):
            return
    elif missing:
        raise UserError(
            f"{' and '.join(missing)} missing: --coordinator=HOST:PORT, "
            "--num_processes and --process_id go together"
        )
    else:
        check_place(str(coordinator), int(count or 0), int(index or 0))
    meeting = f"the coordinator {coordinator}" if coordinator else "the others"
    timer = threading.Timer(seconds, _give_up, (meeting, count, index, seconds))
    timer.daemon = True
    timer.start()
    try:
        jax.distributed.initialize(
            coordinator,
            count,
            index,
            cluster_detection_method="deactivate" if coordinator else None,
            # JAX's own end is a stack trace: ours comes first.
            initialization_timeout=int(seconds) + 60,
        )
    except (RuntimeError, ValueError) as error:
        words = " ".join(str(error).split())
        if len(missing) == 3 and "coordinator_address" in words:
            return  # nothing was told after all
        raise UserError(f"{meeting} cannot be joined: {words[:300]}") from error
    finally:
        timer.cancel()
    if distributed.global_state.num_processes > 1:
        if distributed.global_state.process_id:
            sys.stdout = open(os.devnull, "w")  # for good
        threading.Thread(target=_listen, daemon=True).start()


def check_place(coordinator: str, count: int, index: int) -> None:
    """Checks the three flags.

    Raises:
      UserError: naming the flag that is wrong.
    """
    match = re.fullmatch(r"(?:\[[0-9A-Fa-f:.]+\]|[^\s:\[\]/]+):(\d{1,5})", coordinator)
    if not match or not 1 <= int(match[1]) <= 65535:
        raise UserError(
            f"--coordinator={coordinator} must be HOST:PORT, as 10.0.0.1:1234"
        )
    if count < 1:
        raise UserError(f"--num_processes={count} must be at least 1")
    if not 0 <= index < count:
        raise UserError(
            f"--process_id={index} must be in [0, {count - 1}]: "
            f"--num_processes={count}, counted from 0"
        )


def _give_up(
    meeting: str, count: int | None, index: int | None, seconds: float
) -> None:
    who = "" if index is None else f" by process {index} of {count}"
    _end(
        2,
        f"error: {meeting} could not be met in {seconds:.0f} seconds{who}; start all "
        "processes, and check --coordinator, --num_processes and --process_id",
    )


def _end(status: int, line: str) -> NoReturn:
    """Ends the process from any thread, without waiting for other processes."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201
    os._exit(status)


def _client() -> Any:
    return distributed.global_state.client


def _listen() -> None:
    """Ends this process when another has failed."""
    client = _client()
    while not _over.wait(LISTENING):
        try:
            status, words = client.key_value_try_get(FAILED).split(" ", 1)
        except Exception:  # none failed, or the coordinator is gone
            continue
        if _over.is_set():
            return
        if is_first():
            print(f"error: {words}", file=sys.stderr, flush=True)  # noqa: T201
            time.sleep(LINGERING)  # the others ask this process
        os._exit(int(status))


def together(program: Callable[[], None]) -> int:
    """Runs a program that may be one of several, as `errors.exit_status`.

    Where there are several and it fails, the others are told and this process ends
    here, since JAX's own end would wait for them.

    Args:
      program: the whole program; it joins the others first.
    """
    failures: list[BaseException] = []

    def watched() -> None:
        try:
            program()
        except StoppedError:
            raise  # all of them stop, at the same step
        except BaseException as error:
            if process_count() > 1:
                failures.append(error)
                if not isinstance(error, UserError):
                    # Perhaps but an echo of another's failure, which is heard of first.
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
        words = " ".join(f"{failures[0]}".split())[:WORDS] or "interrupted"
        number = distributed.global_state.process_id
        notice = f"{status} process {number} failed: {words}"
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # another was faster
            _client().key_value_set(FAILED, notice)
        time.sleep(LINGERING)
        sys.stdout.flush()
        os._exit(status)
    return status


def process_count() -> int:
    """Returns the number of processes, without making devices ready."""
    return int(distributed.global_state.num_processes)


def is_first() -> bool:
    """Says whether this process speaks and writes for all."""
    return distributed.global_state.process_id == 0


def wait(name: str) -> None:
    """Waits for all processes, as long as it takes.

    Args:
      name: the same on all, and used once.
    """
    if process_count() > 1:
        client = _client()
        client.wait_at_barrier(f"tokret/{name}", int(PATIENCE * 1000))


def wait_for_first() -> None:
    """Waits at the end of a program whose last work is the first process's alone."""
    if process_count() > 1:
        jax.local_devices()  # the first gets its own only once all have told of theirs
        wait("the end")


def first_alone(make: Callable[[], Result], name: str) -> Result:
    """Makes something in the first process, then in the others, who find it made.

    Args:
      make: prepares what lies on disk.
      name: used once.
    """
    if not is_first():
        wait(name)
    made = make()
    if is_first():
        wait(name)
    return made


def compiled_together(step: Callable[..., Result], name: str) -> Callable[..., Result]:
    """Lets all processes wait, before the first call, until each has compiled it.

    One may find a program in the compilation cache that another has to compile, and
    the sums over CPUs wait for nobody longer than 30 seconds.

    Args:
      step: made by `jax.jit`.
      name: used once.
    """
    if process_count() == 1:
        return step
    met: list[bool] = []

    def call(*arguments: Any) -> Result:
        if not met:
            step.lower(*arguments).compile()  # type: ignore[attr-defined]
            wait(f"{name} is compiled")
            met.append(True)
        return step(*arguments)

    return call


def gathered(numbers: Sequence[int]) -> np.ndarray:
    """Returns the numbers, int32, of all processes, [processes, numbers]."""
    mine = np.array(numbers, np.int32)
    if process_count() == 1:
        return mine[None]
    return np.asarray(multihost_utils.process_allgather(mine))


def gathered_words(words: str) -> list[str]:
    """Returns what each process has to say, cut to `WORDS` bytes.

    It waits for all, however long each takes until it has something to say.
    """
    if process_count() == 1:
        return [words]
    wait(f"words {next(_words)}")
    mine = np.zeros(WORDS, np.uint8)
    encoded = np.frombuffer(words.encode()[:WORDS], np.uint8)
    mine[: len(encoded)] = encoded
    rows = np.asarray(multihost_utils.process_allgather(mine))
    return [row.tobytes().rstrip(b"\0").decode(errors="replace") for row in rows]
