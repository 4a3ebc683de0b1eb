"""One training and its evaluations, run by the two programs as a user runs them.

The results of a trial are stored beside its weights, so that a comparison that was
killed resumes where it stopped.
"""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

import tokret
from tokret.errors import UserError
from tokret.io.atomic_files import write_whole
from tokret.io.json_files import read_json
from tokret.io.regular_files import parsing
from tokret.io.remote.fetching import fetch
from tokret.io.remote.uploading import publish
from tokret.io.remote.urls import shown
from tokret.retrieval.results import read_results

MAX_BYTES = 2**24  # of a trial's note or numbers
CONFIGS = Path(tokret.__file__).parent / "configs"
TOKRET = [sys.executable, "-m", "tokret"]  # the command
REFUSED = 2  # the programs' status after a line that starts with:
ERROR = "error: "
DIVERGED = re.compile("(non-|not )finite")  # in errors of the two commands


class DivergedError(UserError):
    """The weights or descriptors of a training became non-finite."""


class _Metrics(msgspec.Struct):
    mAP: float  # noqa: N815 (as results.json has it)
    recall: float = msgspec.field(name="recall@1")


class _Numbers(msgspec.Struct):
    all: _Metrics


class _Reranked(msgspec.Struct):
    numbers: _Numbers


class _Measured(_Numbers):
    """What the table needs of a file of `Trial.measure`."""

    reranked: _Reranked | None = None


class Trial(NamedTuple):
    """A run of tokret train in a folder, with changes to a config by name.

    The config is the value of --config, with the head after a colon.
    """

    config: str
    fields: Mapping[str, object]
    workdir: Path

    def train(self) -> None:
        """Trains, or resumes the training, unless it is complete.

        Raises:
          DivergedError: the weights became non-finite.
          UserError: the folder is of another trial, or train.py failed.
        """
        self._check()
        done = self.workdir / "trained"
        if fetch(done).exists():
            return
        fields = [f"--config.{name}={value}" for name, value in self.fields.items()]
        run(
            "train",
            f"--config={self.config}",
            *fields,
            f"--workdir={shown(self.workdir)}",
        )
        write_whole(done, "")
        publish(done)

    def measure(self, name: str, arguments: Sequence[str] = ()) -> dict[str, Any]:
        """Evaluates, unless that was done before.

        Args:
          name: of the file that stores the result.
          arguments: of eval.py.

        Returns:
          The numbers as eval.py writes them, and "environment".

        Raises:
          UserError: eval.py failed, or no query has another photo of its class.
        """
        stored = self.workdir / f"{name}.json"
        if not fetch(stored).exists():
            run("eval", f"--workdir={shown(self.workdir)}", "--no-report", *arguments)
            results = self.workdir / "eval" / "results.json"
            found = read_results(fetch(results))
            # The benchmark that was evaluated last comes last.
            numbers = dict(list(found.benchmarks.values())[-1])
            if numbers["all"]["mAP"] is None:
                raise UserError(f"{self.workdir}: no query has another of its class")
            numbers["environment"] = found.environment
            write_whole(stored, json.dumps(numbers, indent=1))
            publish(stored)
        remedy = "remove it, and it is evaluated again"
        content: dict[str, Any] = read_json(stored, dict[str, Any], remedy, MAX_BYTES)
        with parsing(stored, remedy):
            msgspec.convert(content, _Measured)
        return content

    def _check(self) -> None:
        """Refuses a folder of another trial; records the trial in a new one."""
        made = {"config": self.config} | {n: str(v) for n, v in self.fields.items()}
        note = self.workdir / "trial.json"
        self.workdir.mkdir(parents=True, exist_ok=True)
        if not fetch(note).exists():
            write_whole(note, json.dumps(made, indent=1))
            publish(note)
        remedy = "name another folder"
        before: dict[str, str] = read_json(note, dict[str, str], remedy, MAX_BYTES)
        for name in sorted(before.keys() | made.keys()):
            old, new = before.get(name), made.get(name)
            if old != new:
                raise UserError(
                    f"output: {self.workdir} was made with {name}={old}, not {new}; "
                    "name another folder"
                )


def run(program: str, *arguments: str) -> None:
    """Runs one of the two programs; whatever ends this process ends it too.

    Raises:
      DivergedError: updates in a row, or descriptors, were non-finite.
      UserError: it ended with a status other than 0; the message is its own.
    """
    with subprocess.Popen(  # noqa: S603 (this project's own programs)
        [*TOKRET, program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            out, err = process.communicate()
        except BaseException:
            process.terminate()  # it saves its state
            process.wait()
            raise
    status = process.returncode
    if status == 0:
        return
    errors = [line for line in err.splitlines() if line.startswith(ERROR)]
    prefix = f"{program} {' '.join(arguments)}: "
    if status < 0:
        raise UserError(f"{prefix}ended by {signal.Signals(-status).name}")
    if status != REFUSED or not errors:
        words = (err.strip() or out.strip() or "no output").splitlines()[-1]
        raise UserError(f"{prefix}status {status}: {words}")
    words = errors[-1].removeprefix(ERROR)
    raise (DivergedError if DIVERGED.search(words) else UserError)(prefix + words)
