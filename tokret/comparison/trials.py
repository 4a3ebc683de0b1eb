"""One training and its evaluations: the two programs, started as a user starts them.

What a trial has measured lies beside its weights, so that a comparison which was killed
goes on where it was.
"""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tokret
from tokret.errors import UserError
from tokret.io.atomic_files import write_whole

ROOT = Path(tokret.__file__).resolve().parents[1]
REFUSED = 2  # the programs' status after a line that begins so:
ERROR = "error: "
DIVERGED = re.compile("(held|is) no numbers")  # their words for an update, a descriptor


class DivergedError(UserError):
    """A training whose updates hold no numbers any more."""


class Trial(NamedTuple):
    """A run of train.py.

    Attributes:
      config: the value of --config, with the head behind a colon.
      fields: changes to it, by name.
      workdir: of the run.
    """

    config: str
    fields: Mapping[str, object]
    workdir: Path

    def train(self) -> None:
        """Trains, goes on with it, or finds that it has.

        Raises:
          DivergedError: the weights left the numbers.
          UserError: what is there was made otherwise, or train.py refused.
        """
        self._check()
        done = self.workdir / "trained"
        if done.exists():
            return
        fields = [f"--config.{name}={value}" for name, value in self.fields.items()]
        run("train.py", f"--config={self.config}", *fields, f"--workdir={self.workdir}")
        write_whole(done, "")

    def measure(self, name: str, arguments: Sequence[str] = ()) -> dict[str, Any]:
        """Evaluates, or finds that it has.

        Args:
          name: of the file that keeps the numbers.
          arguments: of eval.py.

        Returns:
          The numbers as eval.py writes them, and "environment".

        Raises:
          UserError: eval.py refused, or no photo has another of its class.
        """
        kept = self.workdir / f"{name}.json"
        if not kept.exists():
            run("eval.py", f"--workdir={self.workdir}", "--noreport", *arguments)
            found = json.loads((self.workdir / "eval" / "results.json").read_text())
            # What was measured last stands last.
            numbers = list(found["benchmarks"].values())[-1]
            if numbers["all"]["mAP"] is None:
                raise UserError(
                    f"{self.workdir}: no photo to look for has another of its class"
                )
            environment = {"environment": found["environment"]}
            write_whole(kept, json.dumps(numbers | environment, indent=1))
        result = json.loads(kept.read_text())
        assert isinstance(result, dict)
        return result

    def _check(self) -> None:
        """Refuses a folder of other fields, else writes down what it is made of."""
        made = {"config": self.config} | {n: str(v) for n, v in self.fields.items()}
        note = self.workdir / "trial.json"
        self.workdir.mkdir(parents=True, exist_ok=True)
        if not note.exists():
            write_whole(note, json.dumps(made, indent=1))
        before = json.loads(note.read_text())
        for name in sorted(before.keys() | made.keys()):
            old, new = before.get(name), made.get(name)
            if old != new:
                raise UserError(
                    f"--output: {self.workdir} was made with {name}={old}, not {new}; "
                    "name another folder"
                )


def run(program: str, *arguments: str) -> None:
    """Runs one of the two programs to its end; whatever ends this ends it too.

    Raises:
      DivergedError: updates in a row held no numbers, or descriptors do not.
      UserError: it ended with another status than 0; its error is told.
    """
    command = [sys.executable, str(ROOT / program), *arguments]
    with subprocess.Popen(  # noqa: S603 (this project's own programs)
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            out, err = process.communicate()
        except BaseException:
            process.terminate()  # it saves what it has
            raise
    if process.returncode == 0:
        return
    errors = [line for line in err.splitlines() if line.startswith(ERROR)]
    told = f"{program} {' '.join(arguments)}: "
    if process.returncode < 0:
        raise UserError(f"{told}ended by {signal.Signals(-process.returncode).name}")
    if process.returncode != REFUSED or not errors:
        words = (err.strip() or out.strip() or "it said nothing").splitlines()[-1]
        raise UserError(f"{told}status {process.returncode}: {words}")
    words = errors[-1].removeprefix(ERROR)
    raise (DivergedError if DIVERGED.search(words) else UserError)(told + words)
