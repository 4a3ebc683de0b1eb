"""Comparisons of tokret with PyTorch, plain Flax, Pillow, faiss and NumPy, in turns.

Run from a clone: `python -m benchmarks COMMAND`. `tokret benchmark` times tokret alone.
"""

import importlib.util
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import tyro

from tokret.errors import UserError, exit_status
from tokret.io.atomic_files import require_writable, write_whole
from tokret.runtime.allocation import keep_freed_memory

Result = dict[str, Any]
Json = Path | None
Files = Annotated[list[Path], tyro.conf.Positional]

app = tyro.extras.SubcommandApp()


def _finish(result: Result, report: str, json_file: Json) -> None:
    """Writes and prints a result, with the targets that it has figures of."""
    from benchmarks.targets import targets_table, with_targets

    result = with_targets(result)
    # First, since the reader of the report may have closed the pipe.
    if json_file is not None:
        write_whole(json_file.resolve(), json.dumps(result, indent=2) + "\n")
    print("\n".join([report, "", *targets_table(result["targets"])]).rstrip())


def _prepare(json_file: Json) -> None:
    """Leaves a GPU's memory to PyTorch too, as train.py a CPU's; before jax starts."""
    require_writable(json_file, "json")
    keep_freed_memory()
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def _speed(name: str, cases: str, minutes: float, turns: int, json_file: Json) -> None:
    _prepare(json_file)
    from tokret.benchmark import speed
    from tokret.benchmark.cases import Settings
    from tokret.benchmark.rivals import Rivals

    rivals = Rivals()
    if importlib.util.find_spec("torch") is None:
        rivals.note = "PyTorch is not installed: pip install 'tokret[torch]'"
    else:
        from benchmarks.torch_forms import TorchRivals

        rivals = TorchRivals()
    result = speed.run(name, Settings(turns, rivals), cases=cases, minutes=minutes)
    _finish(result, speed.report(result), json_file)


@app.command
def inference(
    cases: str = "", minutes: float = 10.0, turns: int = 7, json: Json = None
) -> None:
    """Descriptors of a batch on the device, beside PyTorch.

    Args:
      cases: only cases with any of these in their names, as "resnet50 float32 8x512";
        with commas.
      minutes: after which no case starts.
      turns: times that each case is timed.
      json: file for the figures.
    """
    _speed("inference", cases, minutes, turns, json)


@app.command
def train(
    cases: str = "", minutes: float = 10.0, turns: int = 7, json: Json = None
) -> None:
    """Training steps of a batch on the device, beside PyTorch.

    Args:
      cases: only cases with any of these in their names, with commas.
      minutes: after which no case starts.
      turns: times that each case is timed.
      json: file for the figures.
    """
    _speed("train", cases, minutes, turns, json)


@app.command
def extract(
    cases: str = "", minutes: float = 10.0, turns: int = 7, json: Json = None
) -> None:
    """Three-scale descriptors of mixed shapes, beside one photo at a time.

    Args:
      cases: only cases with any of these in their names, with commas.
      minutes: after which no case starts.
      turns: times that each case is timed.
      json: file for the figures.
    """
    _speed("extract", cases, minutes, turns, json)


def _single(name: str, turns: int, json_file: Json) -> None:
    _prepare(json_file)
    from tokret.benchmark import speed

    result = speed.run_single(name, turns)
    _finish(result, speed.report(result), json_file)


@app.command
def scan(turns: int = 7, json: Json = None) -> None:
    """Search of a database on the device, beside reading it once.

    Args:
      turns: times that each case is timed.
      json: file for the figures.
    """
    _single("scan", turns, json)


@app.command
def start(turns: int = 7, json: Json = None) -> None:
    """Compiling in a first and in a second start of the same program.

    Args:
      turns: times that each case is timed.
      json: file for the figures.
    """
    _single("start", turns, json)


@app.command(name="input")
def input_(photos: Path | None = None, turns: int = 7, json: Json = None) -> None:
    """Training's input on one core, beside plain Pillow.

    Args:
      photos: folder of photos, instead of noise.
      turns: times that each case is timed.
      json: file for the figures.
    """
    require_writable(json, "json")
    from benchmarks.pillow_views import MAKER
    from tokret.benchmark import input_pipeline

    result = input_pipeline.run(photos, turns, MAKER)
    _finish(result, input_pipeline.report(result), json)


@app.command
def search(
    database: int = 1_000_000,
    dim: int = 1024,
    queries: int = 70,
    forms: str = "bf16,int8,pq128,pq1024",
    scratch: Path | None = None,
    turns: int = 7,
    json: Json = None,
) -> None:
    """Search of a million descriptors beside faiss and NumPy; and compressed.

    Args:
      database: distractors behind 6,322 labelled images.
      dim: dimensions.
      queries: searched together, and one by one.
      forms: compressions to measure, with commas; none if empty.
      scratch: folder of the descriptors until the end (4.1 GB for a million).
      turns: times that each case is timed.
      json: file for the figures.
    """
    require_writable(json, "json")
    from benchmarks.search_rivals import searches
    from tokret.benchmark import search_speed

    chosen = [form for form in forms.split(",") if form]
    result = search_speed.run(database, dim, queries, turns, scratch, chosen, searches)
    _finish(result, search_speed.report(result), json)


@app.command(name="bytes")
def bytes_(json: Json = None) -> None:
    """Bytes that a TPU moves in a training step, compiled here, beside plain Flax.

    Args:
      json: file for the figures.
    """
    require_writable(json, "json")
    # Keeps jax, not imported yet, from searching for a TPU, here or in the cloud.
    os.environ |= {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1"}
    from benchmarks import step_bytes

    result = step_bytes.run()
    _finish(result, step_bytes.report(result), json)


@app.command(name="all")
def all_(
    quick: bool = False, minutes: float = 10.0, turns: int = 7, json: Json = None
) -> None:
    """Every benchmark of this machine, each in a process of its own; all targets.

    Args:
      quick: one minute each, small databases, and no bytes.
      minutes: after which no case of a benchmark starts.
      turns: times that each case is timed.
      json: file for the figures.
    """
    require_writable(json, "json")
    from benchmarks import all_in_turn

    print(all_in_turn.report(all_in_turn.run(turns, minutes, quick, json)))


@app.command
def readme_table(results: Files, readme: Path = Path("README.md")) -> None:
    """Writes the README's table of ratios.

    Args:
      results: JSONs of inference, train, extract or all.
      readme: the file with the table's marks.
    """
    from benchmarks import readme_table as table

    print(f"{readme}: {table.run(readme, results)} rows of ratios")


@app.command
def pod_table(file: Path = Path("docs/pods.md")) -> None:
    """Compiles the released recipe for TPU pods, those rows that are not done yet.

    Args:
      file: the table, beside a folder "measurements" for its rows.
    """
    os.environ |= {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1"}
    from benchmarks import pod_table as table

    print(f"written: {file}, {table.run(file)} rows")


# They compile for minutes, in which Python handles no signals, and write nothing then.
ENDS_AT_ONCE = {"bytes", "pod_table"}


def main() -> None:
    """Runs one command; a signal to end ends the processes that it has started too."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    for number in () if name in ENDS_AT_ONCE else (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup sets it
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    run: Callable[..., None] = app.cli
    try:
        run(prog="python -m benchmarks", description=__doc__, use_underscores=True)
    except ModuleNotFoundError as error:
        raise UserError(f"{name} needs {error.name}, which is not installed") from error


if __name__ == "__main__":
    sys.exit(exit_status(main))
