"""Runs workers, and notices when a mutation ends or holds up a whole process."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
STALLED = 300  # seconds without a new mutation
# Readers that write synchronise to the disk, which would take most of the time.
MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None
FEW_ARENAS = {"MALLOC_ARENA_MAX": "2"}  # each thread's would count as memory
COMMAND = ("-m", "tests.fuzz.worker")


class Outcome(NamedTuple):
    """What the mutations of a reader ended in."""

    tried: int
    refused: int
    accepted: int
    unexpected: dict[str, list[int]]  # the numbers of mutations, by what happened


def fuzz(
    counts: Mapping[str, int],
    seed: int,
    done: Callable[[str, Outcome], None] = lambda *_: None,
) -> dict[str, Outcome]:
    """Tries mutations of some readers' files.

    Args:
      counts: how many, by reader.
      seed: another one gives other mutations.
      done: called after each reader.
    """
    found = {name: Outcome(0, 0, 0, {}) for name in counts}
    crashed: dict[str, list[int]] = {name: [] for name in counts}
    while left := [name for name in counts if found[name].tried < counts[name]]:
        with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
            work = {
                "folder": folder,
                "seed": seed,
                "readers": [
                    (name, found[name].tried, counts[name], crashed[name])
                    for name in left
                ],
            }

            def add(tally: dict[str, Any]) -> None:
                name = tally["reader"]
                _, refused, accepted, unexpected = found[name]
                for words, numbers in tally["unexpected"].items():
                    unexpected.setdefault(words, []).extend(numbers)
                found[name] = Outcome(
                    tally["next"],
                    refused + tally["refused"],
                    accepted + tally["accepted"],
                    unexpected,
                )
                if found[name].tried == counts[name]:
                    done(name, found[name])

            ending = _run_worker(work, Path(folder) / "progress", add)
            left = [name for name in left if found[name].tried < counts[name]]
            if left:
                number = int((Path(folder) / "progress").read_text())
                crashed[left[0]].append(number)
                found[left[0]].unexpected.setdefault(ending, []).append(number)
    return found


def _run_worker(
    work: dict[str, Any], progress: Path, add: Callable[[dict[str, Any]], None]
) -> str:
    """Runs a worker to its end; returns how it ended, if not by itself."""
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            [sys.executable, *COMMAND],
            cwd=ROOT,
            env={
                **os.environ,
                "JAX_PLATFORMS": "cpu",
                "PYTHONPATH": str(ROOT),
                **FEW_ARENAS,
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        ended = threading.Event()
        watch = (process, progress, ended)
        threading.Thread(target=_end_stalled, args=watch).start()
        try:
            with contextlib.suppress(BrokenPipeError), process.stdin as stream:
                stream.write(json.dumps(work))
            for line in process.stdout:
                add(json.loads(line))
            status = process.wait()
        finally:
            ended.set()
        errors.seek(0)
        words = errors.read().decode(errors="replace")
    if status > 0:
        raise RuntimeError(f"the worker failed:\n{words[-3000:]}")
    if status < 0:
        print(words[-5000:], file=sys.stderr)  # faulthandler's
    return f"ended by signal {-status}"


def _end_stalled(
    process: subprocess.Popen[str], progress: Path, ended: threading.Event
) -> None:
    before = None
    while not ended.wait(STALLED):
        now = progress.read_bytes() if progress.exists() else b""
        if now == before:
            process.send_signal(signal.SIGABRT)  # prints where it is
        before = now
