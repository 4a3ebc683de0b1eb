"""Timings of tokret on this machine; plans for TPU pods.

    python -m tokret.benchmark inference | train | extract [--cases=TEXT,...]
        [--minutes=N] [--turns=N] [--json=FILE]
    python -m tokret.benchmark start | scan [--turns=N] [--json=FILE]
    python -m tokret.benchmark input [--photos=DIR] [--turns=N] [--json=FILE]
    python -m tokret.benchmark search [--database=1000000] [--dim=1024] [--queries=70]
        [--forms=bf16,int8,pq128,pq1024] [--scratch=DIR] [--turns=N] [--json=FILE]
    python -m tokret.benchmark plan --config=configs/NAME.py --topology=v5e:16x16
        [--model=N] [--batch_size=N] [--what=extract] [--config.FIELD=VALUE ...]

inference, train, extract: models on this device; start: a second start's compiling;
scan: search beside reading the database once; input: training's input on one core;
search: exact search, mAP among a million, compressed databases; plan: memory, work,
collectives and least time of each chip of a TPU pod, from the very program, compiled
without a TPU. In a clone, `python -m benchmarks` compares with others.
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from tokret.benchmark.flag_values import count, folder, minutes, new_file, turns
from tokret.errors import UserError, exit_status
from tokret.io.atomic_files import write_whole
from tokret.runtime.allocation import keep_freed_memory

Result = dict[str, Any]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see python -m tokret.benchmark --help")


class Benchmark(NamedTuple):
    """One subcommand.

    Attributes:
      words: what it times, in a line.
      add_flags: adds flags of its own.
      run: takes the flags, returns what goes into the JSON.
      report: formats it in plain text.
      timed: whether it times something, in turns.
      ends_at_once: whether a signal ends it immediately: it compiles for minutes, in
        which Python handles no signals, and has nothing to clean up.
    """

    words: str
    add_flags: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], Result]
    report: Callable[[Result], str]
    timed: bool = True
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
    from tokret.benchmark import input_pipeline

    return input_pipeline.run(flags.photos, flags.turns)


def _report_input(result: Result) -> str:
    from tokret.benchmark import input_pipeline

    return input_pipeline.report(result)


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


def _run_plan(flags: argparse.Namespace) -> Result:
    avoid_tpu()
    from tokret.benchmark import plan_command as case

    return case.run(flags)


def _report_plan(result: Result) -> str:
    from tokret.benchmark import plan_report

    return plan_report.report(result)


def _search_flags(parser: argparse.ArgumentParser) -> None:
    sizes = (
        ("database", 1_000_000, "distractors behind 6,322 labelled images"),
        ("dim", 1024, "dimensions"),
        ("queries", 70, "queries, which are also searched one by one"),
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
        help="folder of the descriptors until the end (4.1 GB for a million)",
    )


def _run_search(flags: argparse.Namespace) -> Result:
    from tokret.benchmark import search_speed

    return search_speed.run(
        *(flags.database, flags.dim, flags.queries, flags.turns, flags.scratch),
        [form for form in flags.forms.split(",") if form],
    )


def _report_search(result: Result) -> str:
    from tokret.benchmark import search_speed

    return search_speed.report(result)


def _speed_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        *("--cases",),
        default="",
        metavar="TEXT,...",
        help="only cases with any of these in their names, as 'resnet50 float32 8x512'",
    )
    parser.add_argument(
        *("--minutes",), type=minutes, default=10.0, help="no case starts later (10)"
    )


def _run_speed(flags: argparse.Namespace) -> Result:
    keep_memory()
    from tokret.benchmark import speed
    from tokret.benchmark.cases import Settings

    return speed.run(
        flags.benchmark,
        Settings(flags.turns),
        cases=flags.cases,
        minutes=flags.minutes,
    )


def _run_single(flags: argparse.Namespace) -> Result:
    keep_memory()
    from tokret.benchmark import speed

    return speed.run_single(flags.benchmark, flags.turns)


def _report_speed(result: Result) -> str:
    from tokret.benchmark import speed

    return speed.report(result)


def avoid_tpu() -> None:
    """Keeps jax, not imported yet, from searching for a TPU, here or in the cloud."""
    os.environ |= {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1"}


def keep_memory() -> None:
    """Leaves a GPU's memory to PyTorch too, as train.py a CPU's; before jax starts."""
    keep_freed_memory()
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def _no_flags(parser: argparse.ArgumentParser) -> None:
    """Adds none: a benchmark of one case."""


BENCHMARKS = {
    "input": Benchmark(
        "training's input on one core",
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
        "search of a million descriptors, exact and compressed",
        _search_flags,
        _run_search,
        _report_search,
    ),
    **{
        name: Benchmark(words, _speed_flags, _run_speed, _report_speed)
        for name, words in (
            ("inference", "descriptors of a batch on the device"),
            ("train", "training steps of a batch on the device"),
            ("extract", "three-scale descriptors of mixed shapes"),
        )
    },
    "scan": Benchmark(
        "search of a database on the device, beside reading it once",
        *(_no_flags, _run_single, _report_speed),
    ),
    "start": Benchmark(
        "compiling in a first and in a second start of the same program",
        *(_no_flags, _run_single, _report_speed),
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
        command.add_argument(
            "--json", type=new_file, metavar="FILE", help="where the figures go"
        )
    return parser


def main() -> None:
    """Parses the flags; a signal to end ends the processes that it has started too."""
    flags, fields = _parser().parse_known_args()
    benchmark = BENCHMARKS[flags.benchmark]
    for number in () if benchmark.ends_at_once else (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    # Fields of a config, which only a benchmark with a config takes.
    for text in fields:
        if not text.startswith("--config.") or not hasattr(flags, "config"):
            raise UserError(
                f"{text} is not a flag; see python -m tokret.benchmark --help"
            )
    flags.fields = fields
    try:
        result = benchmark.run(flags)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{flags.benchmark} needs {error.name}, which is not installed"
        ) from error
    # First, since the reader of the report may have closed the pipe.
    if flags.json is not None:
        write_whole(flags.json.resolve(), json.dumps(result, indent=2) + "\n")
    print(benchmark.report(result))


if __name__ == "__main__":
    sys.exit(exit_status(main))
