"""Timings of this machine, each beside a rival in the same run.

    python -m tokret.benchmark input [--photos=DIR] [--turns=N] [--json=FILE]

input: training's input on one core, beside plain Pillow.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from tokret.errors import UserError, exit_status

Result = dict[str, Any]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; python -m tokret.benchmark --help says more")


class Benchmark(NamedTuple):
    """One subcommand.

    Attributes:
      words: what it times, in a line.
      add_flags: adds flags of its own.
      run: takes the flags, returns what goes into the JSON.
      report: says it in plain text.
    """

    words: str
    add_flags: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], Result]
    report: Callable[[Result], str]


def _folder(name: str) -> Path:
    if not Path(name).is_dir():
        raise UserError(f"--photos={name} is no folder")
    return Path(name)


def _input_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--photos", type=_folder, metavar="DIR", help="photos instead of noise"
    )


# Each imports what it needs only when it runs: some need more than is installed.
def _run_input(flags: argparse.Namespace) -> Result:
    from tokret.benchmark import input as case

    return case.run(flags.photos, flags.turns)


def _report_input(result: Result) -> str:
    from tokret.benchmark import input as case

    return case.report(result)


BENCHMARKS = {
    "input": Benchmark(
        "training's input on one core, beside plain Pillow",
        _input_flags,
        _run_input,
        _report_input,
    ),
}


def _turns(text: str) -> int:
    turns = int(text) if text.isdecimal() else 0
    if turns < 1:
        raise UserError(f"--turns={text}: at least one turn is needed")
    return turns


def _new_file(name: str) -> Path:
    path = Path(name)
    if path.is_dir() or not path.parent.is_dir():
        raise UserError(f"--json={name} cannot be written: name a file in a folder")
    return path


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m tokret.benchmark",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="benchmark", required=True)
    for name, benchmark in BENCHMARKS.items():
        command = commands.add_parser(
            name, help=benchmark.words, description=benchmark.words
        )
        benchmark.add_flags(command)
        command.add_argument(
            "--turns", type=_turns, default=7, help="times that each case is timed (7)"
        )
        command.add_argument(
            "--json", type=_new_file, metavar="FILE", help="where the figures go"
        )
    return parser


def main() -> None:
    """Reads the flags."""
    flags = _parser().parse_args()
    benchmark = BENCHMARKS[flags.benchmark]
    result = benchmark.run(flags)
    print(benchmark.report(result))
    if flags.json is not None:
        flags.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(exit_status(main))
