"""Timings of this machine, each beside a rival in the same run; plans for others.

    python -m tokret.benchmark all [--quick] [--minutes=N] [--turns=N] [--json=FILE]
    python -m tokret.benchmark inference | train | extract [--cases=TEXT,...]
        [--minutes=N] [--turns=N] [--json=FILE]
    python -m tokret.benchmark start | scan [--turns=N] [--json=FILE]
    python -m tokret.benchmark table README.md docs/measurements/speed-*.json
    python -m tokret.benchmark input [--photos=DIR] [--turns=N] [--json=FILE]
    python -m tokret.benchmark search [--database=1000000] [--dim=1024] [--queries=70]
        [--forms=bf16,int8,pq128,pq1024] [--scratch=DIR] [--turns=N] [--json=FILE]
    python -m tokret.benchmark plan --config=configs/NAME.py --topology=v5e:16x16
        [--model=N] [--batch_size=N] [--what=extract] [--config.FIELD=VALUE ...]
    python -m tokret.benchmark plan --table=docs/pods.md
    python -m tokret.benchmark bytes [--json=FILE]

inference, train, extract: tokret beside PyTorch, in turns; start: a second start's
compiling; scan: search beside reading the database once. all: each of them, search,
input and bytes, in processes of their own, and the targets.
table: the README's ratios, from JSONs.
input: training's input on one core, beside plain Pillow.
search: exact search beside faiss and NumPy, mAP among a million, compressed databases.
plan: memory, work, collectives and least time of each chip of a TPU pod, from the very
program, compiled without a TPU; --table writes those of the released recipe.
bytes: what a TPU moves in the released recipe's step, beside the same in plain Flax.
"""

import argparse
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from tokret.benchmark import speed_commands
from tokret.benchmark.flag_values import count, folder, new_file, turns
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
      timed: whether it times something, in turns.
      keeps: whether its figures go into a JSON.
      ends_at_once: whether a signal ends it where it is: it compiles for minutes,
        through which Python hears nothing, and has nothing to clear up.
    """

    words: str
    add_flags: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], Result]
    report: Callable[[Result], str]
    timed: bool = True
    keeps: bool = True
    ends_at_once: bool = False


def _input_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--photos",
        type=folder("--photos"),
        metavar="DIR",
        help="photos instead of noise",
    )


# Each imports what it needs only when it runs: some need more than is installed.
def _run_input(flags: argparse.Namespace) -> Result:
    from tokret.benchmark import input as case

    return case.run(flags.photos, flags.turns)


def _report_input(result: Result) -> str:
    from tokret.benchmark import input as case

    return case.report(result)


def _plan_flags(parser: argparse.ArgumentParser) -> None:
    whats = ("train", "extract", "search")
    parser.add_argument("--config", metavar="FILE", help="configs/*.py")
    parser.add_argument("--topology", metavar="POD", help="as v5e:16x16 or v4:2x2x4")
    parser.add_argument("--what", choices=whats, default="train", help="(train)")
    for name, words in (
        ("--model", "chips that split the class matrix (1)"),
        ("--batch_size", "images, or queries, of all chips (the config's)"),
        ("--photos", "to train with (GLDv2-clean's)"),
        ("--classes", "of them (GLDv2-clean's)"),
    ):
        parser.add_argument(name, type=count(name), metavar="N", help=words)
    parser.add_argument(
        "--database",
        type=count("--database"),
        default=1_000_000,
        metavar="N",
        help="descriptors to search in (1 million)",
    )
    parser.add_argument(
        "--store",
        choices=("float32", "bfloat16"),
        default="float32",
        help="the database's dtype (float32)",
    )
    parser.add_argument(
        "--table",
        type=Path,
        metavar="FILE.md",
        help="compile for all rows of the table there that are not done yet",
    )


def _run_plan(flags: argparse.Namespace) -> Result:
    speed_commands.look_for_no_tpu()
    from tokret.benchmark import plan_command as case

    return case.run(flags)


def _report_plan(result: Result) -> str:
    from tokret.benchmark import plan_command as case

    return case.report(result)


def _search_flags(parser: argparse.ArgumentParser) -> None:
    sizes = (
        ("database", 1_000_000, "distractors behind 6,322 labelled images"),
        ("dim", 1024, "dimensions"),
        ("queries", 70, "queries, which are also asked one by one"),
    )
    for name, default, words in sizes:
        parser.add_argument(
            f"--{name}",
            type=count(f"--{name}"),
            default=default,
            help=f"{words} ({default})",
        )
    parser.add_argument(
        "--forms",
        default="bf16,int8,pq128,pq1024",
        help="compressions to measure, with commas; none if empty (%(default)s)",
    )
    parser.add_argument(
        "--scratch",
        type=folder("--scratch"),
        metavar="DIR",
        help="where the descriptors lie until the end (4.1 GB for a million)",
    )


def _run_search(flags: argparse.Namespace) -> Result:
    from tokret.benchmark import search as case
    from tokret.benchmark.invented_descriptors import LABELLED
    from tokret.retrieval.compression.database import check_form

    if flags.queries * 3 > LABELLED:
        raise UserError(f"--queries={flags.queries}: at most {LABELLED // 3}")
    forms = [check_form(form, flags.dim) for form in flags.forms.split(",") if form]
    return case.run(
        *(flags.database, flags.dim, flags.queries, flags.turns, flags.scratch), forms
    )


def _report_search(result: Result) -> str:
    from tokret.benchmark import search_report

    return search_report.report(result)


BENCHMARKS = {
    "input": Benchmark(
        "training's input on one core, beside plain Pillow",
        _input_flags,
        _run_input,
        _report_input,
    ),
    "plan": Benchmark(
        "memory, work and least time of a TPU pod's chips, compiled without a TPU",
        _plan_flags,
        _run_plan,
        _report_plan,
        timed=False,
        ends_at_once=True,
    ),
    "search": Benchmark(
        "search of a million descriptors, exact and compressed, beside faiss and NumPy",
        _search_flags,
        _run_search,
        _report_search,
    ),
    **{
        name: Benchmark(
            words,
            speed_commands.speed_flags,
            speed_commands.run_speed,
            speed_commands.report_speed,
        )
        for name, words in speed_commands.CASES.items()
    },
    **{
        name: Benchmark(
            words,
            speed_commands.no_flags,
            speed_commands.run_single,
            speed_commands.report_speed,
        )
        for name, words in speed_commands.SINGLE.items()
    },
    "bytes": Benchmark(
        speed_commands.BYTES,
        speed_commands.no_flags,
        speed_commands.run_bytes,
        speed_commands.report_speed,
        timed=False,
        ends_at_once=True,
    ),
    "all": Benchmark(
        "every benchmark of this machine in a row, and the targets",
        speed_commands.all_flags,
        speed_commands.run_all,
        speed_commands.report_all,
    ),
    "table": Benchmark(
        "writes the README's table of ratios from JSONs of benchmarks",
        speed_commands.table_flags,
        speed_commands.run_table,
        speed_commands.report_table,
        timed=False,
        keeps=False,
    ),
}


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m tokret.benchmark",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="benchmark", required=True)
    for name, benchmark in BENCHMARKS.items():
        command = commands.add_parser(
            name,
            help=benchmark.words,
            description=benchmark.words,
            allow_abbrev=False,
        )
        benchmark.add_flags(command)
        if benchmark.timed:
            command.add_argument(
                "--turns", type=turns, default=7, help="times each case is timed (7)"
            )
        if benchmark.keeps:
            command.add_argument(
                "--json", type=new_file, metavar="FILE", help="where the figures go"
            )
    return parser


def main() -> None:
    """Reads the flags; a signal to end ends the processes that it has started too."""
    flags, fields = _parser().parse_known_args()
    benchmark = BENCHMARKS[flags.benchmark]
    for number in () if benchmark.ends_at_once else (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    # Fields of a config, which only a benchmark with a config takes.
    for text in fields:
        if not text.startswith("--config.") or not hasattr(flags, "config"):
            raise UserError(
                f"{text} is not a flag; python -m tokret.benchmark --help says more"
            )
    flags.fields = fields
    try:
        result = benchmark.run(flags)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{flags.benchmark} needs {error.name}, which is not installed"
        ) from error
    # First, since whoever reads the report may have gone.
    if benchmark.keeps and flags.json is not None:
        speed_commands.write_json(flags.json, result)
    print(benchmark.report(result))


if __name__ == "__main__":
    sys.exit(exit_status(main))
