"""Every benchmark of this machine, each in a process of its own, and all targets."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.targets import judge, targets_table
from tokret.errors import UserError
from tokret.io.atomic_files import write_whole

SECONDS_TO_CLEAN_UP = 5.0
ENDING = {signal.SIGTERM, signal.SIGHUP, signal.SIGINT}
MANY_CASES = ("inference", "train", "extract")
# Arguments of each. Compressed databases, which take longest, need `search` itself.
ROW: dict[str, tuple[str, ...]] = dict.fromkeys((*MANY_CASES, "scan", "start"), ())
ROW |= {"search": ("--forms=",), "input": (), "bytes": ()}
UNTIMED = {"bytes"}  # and takes minutes: a quick run skips it


def arguments_of(name: str, *, turns: int, minutes: float, quick: bool) -> list[str]:
    """Returns the command line of one benchmark of the row."""
    timed = [] if name in UNTIMED else [f"--turns={turns}"]
    most = [f"--minutes={1.0 if quick else minutes}"] if name in MANY_CASES else []
    small = ["--database=20000"] if quick and name == "search" else []
    return [*ROW[name], *timed, *most, *small]


def run(
    turns: int, minutes: float, quick: bool, json_file: Path | None
) -> dict[str, Any]:
    """Runs every benchmark in a process of its own, and judges all targets.

    Where one fails the others still run; after each, the JSON has all results so far.

    Raises:
      UserError: if nothing could be measured.
    """
    results: dict[str, Any] = {}
    failed: dict[str, str] = {}
    result: dict[str, Any] = {"benchmark": "all", "results": results, "failed": failed}
    for name in ROW:
        if quick and name in UNTIMED:
            continue
        arguments = arguments_of(name, turns=turns, minutes=minutes, quick=quick)
        found, why = run_apart(name, arguments)
        if found is None:
            failed[name] = why
        else:
            results[name] = found
        result["targets"] = judge(results)
        if json_file is not None and results:  # else an older one stays
            write_whole(json_file.resolve(), json.dumps(result, indent=2) + "\n")
    if not results:
        reasons = "; ".join(f"{name}: {why}" for name, why in failed.items())
        raise UserError(f"nothing could be measured: {reasons}")
    return result


def run_apart(name: str, arguments: list[str]) -> tuple[dict[str, Any] | None, str]:
    """Runs a benchmark, its output passing through: (its JSON, why there is none).

    Whatever ends this process ends the benchmark and what it has started too.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.json"
        command = [sys.executable, "-m", "benchmarks", name, f"--json={path}"]
        sys.stdout.write(f"== {name}\n")
        sys.stdout.flush()
        process, signals = _start([*command, *arguments])
        with process:
            try:
                for number in signals:
                    signal.raise_signal(number)
                _, errors = process.communicate()
            except BaseException:
                _end(process)
                raise
        if path.exists():  # written whole, even if printing failed
            return json.loads(path.read_text()), ""
    why = (errors.strip().splitlines() or ["it ended without a message"])[-1]
    why = why.removeprefix("error: ")
    sys.stdout.write(f"not measured: {why}\n\n")
    return None, why


def _start(command: list[str]) -> tuple["subprocess.Popen[str]", list[int]]:
    """Starts a process; returns it, and signals that arrived meanwhile.

    A handler that raised inside Popen would lose the process that it has just started.
    """
    arrived: list[int] = []
    handlers = {number: signal.getsignal(number) for number in ENDING}
    for number, handler in handlers.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, lambda number, _: arrived.append(number))
    try:
        process = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, process_group=0
        )
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return process, arrived


def _end(process: "subprocess.Popen[str]") -> None:
    """Ends a benchmark, which may clean up first, and what it has started."""
    process.terminate()
    try:
        process.wait(SECONDS_TO_CLEAN_UP)
    except subprocess.TimeoutExpired:
        pass
    finally:
        with contextlib.suppress(ProcessLookupError):  # all have ended
            os.killpg(process.pid, signal.SIGKILL)


def report(result: dict[str, Any]) -> str:
    """Formats which targets were reached; the tables were printed before."""
    lines = ["== targets", *targets_table(result["targets"])]
    lines += [f"not measured: {n}: {why}" for n, why in result["failed"].items()]
    return "\n".join(lines)
