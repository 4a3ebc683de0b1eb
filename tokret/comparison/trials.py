"""One training and its evaluations: the two programs, started as a user starts them.

What a trial has measured lies beside its weights, so that a comparison which was killed
goes on where it was.
"""

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tokret
from tokret.errors import UserError
from tokret.whole_files import write_whole

ROOT = Path(tokret.__file__).resolve().parents[1]


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

    def train(self) -> float:
        """Trains, or finds that it has; returns the seconds that it took at first.

        Raises:
          UserError: train.py refused, and says why.
        """
        told = self.workdir / "seconds.json"
        if told.exists():
            return float(json.loads(told.read_text()))
        fields = [f"--config.{name}={value}" for name, value in self.fields.items()]
        start = time.perf_counter()
        run("train.py", f"--config={self.config}", *fields, f"--workdir={self.workdir}")
        seconds = time.perf_counter() - start
        write_whole(told, json.dumps(seconds))
        return seconds

    def measure(self, name: str, arguments: Sequence[str] = ()) -> dict[str, Any]:
        """Evaluates, or finds that it has.

        Args:
          name: of the file that keeps the numbers.
          arguments: of eval.py.

        Returns:
          The numbers as eval.py writes them, and "environment".

        Raises:
          UserError: eval.py refused, and says why.
        """
        kept = self.workdir / f"{name}.json"
        if not kept.exists():
            run("eval.py", f"--workdir={self.workdir}", "--noreport", *arguments)
            found = json.loads((self.workdir / "eval" / "results.json").read_text())
            # The last of what this environment measured is what was asked for.
            numbers = list(found["benchmarks"].values())[-1]
            environment = {"environment": found["environment"]}
            write_whole(kept, json.dumps(numbers | environment, indent=1))
        result = json.loads(kept.read_text())
        assert isinstance(result, dict)
        return result


def run(program: str, *arguments: str) -> None:
    """Runs one of the two programs to its end.

    Raises:
      UserError: it ended with another status than 0; its last line is told.
    """
    command = [sys.executable, str(ROOT / program), *arguments]
    done = subprocess.run(  # noqa: S603 (this project's own programs)
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no word").splitlines()[
            -1
        ]
        raise UserError(f"{program} {' '.join(arguments)}: {last}")
