"""Comparisons of tokret with PyTorch, plain Flax, Pillow, faiss and NumPy, in turns.

Run from a clone: `python -m benchmarks COMMAND`. `tokret benchmark` times tokret alone.
"""

import sys
from pathlib import Path
from typing import Annotated, Any

import tyro

from benchmarks.rivals import InstalledRivals
from tokret import command_line
from tokret.commands.benchmark import Timings, avoid_tpu, measure
from tokret.commands.serve import require_libraries

Files = Annotated[tuple[Path, ...], tyro.conf.Positional]
RIVALS = InstalledRivals()


def step_bytes(json: Path | None = None) -> None:
    """Bytes that a TPU moves in a training step, compiled here, beside plain Flax.

    Args:
      json: a file for the figures.
    """
    avoid_tpu()

    def run() -> tuple[dict[str, Any], str]:
        from benchmarks import step_bytes

        result = step_bytes.run()
        return RIVALS.judge(result, step_bytes.report(result))

    measure(run, json, ends_at_once=True)


def engines(
    engine: str = "qdrant-edge",
    descriptors: str = "clustered",
    rows: int = 100_000,
    queries: int = 100,
    top: int = 100,
    json: Path | None = None,
) -> None:
    """An engine of an index beside NumPy: recall, time, building and disk.

    Args:
      engine: its URL, as of `tokret index --to`; the collection must not exist.
      descriptors: clustered, like those of photos, or uniform.
      rows: of the database, with 1,024 dimensions.
      queries: how many are searched, each by NumPy and the engine in turns.
      top: how many rows each retrieves.
      json: a file for the figures.
    """

    def run() -> tuple[dict[str, Any], str]:
        from benchmarks import search_engines

        result = search_engines.run(engine, descriptors, rows, queries, top)
        return result, search_engines.report(result)

    measure(run, json, ends_at_once=True)


def checkpoints(mib: int = 512, turns: int = 9, json: Path | None = None) -> None:
    """Saving and loading checkpoints with digests and without; flipped bits.

    Args:
      mib: size of the checkpoint.
      turns: how often each is timed.
      json: a file for the figures.
    """

    def run() -> tuple[dict[str, Any], str]:
        from benchmarks import checkpoint_digests

        result = checkpoint_digests.run(mib, turns)
        return result, checkpoint_digests.report(result)

    measure(run, json, ends_at_once=True)


def soak(
    queries: int = 10_000,
    clients: int = 8,
    kills: int = 3,
    seed: int = 0,
    json: Path | None = None,
) -> None:
    """A service under faults and kills: nothing is lost, nothing grows.

    Args:
      queries: how many, and faults between them.
      clients: at once.
      kills: how often the service is killed.
      seed: another one has other faults.
      json: a file for the figures.
    """
    require_libraries()

    def run() -> tuple[dict[str, Any], str]:
        from benchmarks import soak_serve

        result = soak_serve.run(queries, clients, kills, seed)
        return result, soak_serve.report(result)

    measure(run, json, ends_at_once=False)


def remote_input(
    url: str,
    photos: int = 4096,
    rate: float = 500.0,
    turns: int = 5,
    json: Path | None = None,
) -> None:
    """How long training waits for photos from a bucket, in turns with the disk.

    Args:
      url: a folder in a bucket, into which a dataset is prepared.
      photos: of the dataset.
      rate: images/s that a model would train on.
      turns: how often each case is timed.
      json: a file for the figures.
    """

    def run() -> tuple[dict[str, Any], str]:
        from benchmarks import remote_input

        result = remote_input.run(url, photos, rate, turns)
        return result, remote_input.report(result)

    measure(run, json, ends_at_once=True)


def every(
    quick: bool = False, minutes: float = 10.0, turns: int = 7, json: Path | None = None
) -> None:
    """Every benchmark of this machine, each in a process of its own; all targets.

    Args:
      quick: one minute each, small databases, and no bytes.
      minutes: after which no case of a benchmark starts.
      turns: how often each case is timed.
      json: a file for the figures.
    """

    def run() -> tuple[dict[str, Any], str]:
        from benchmarks import all_in_turn

        result = all_in_turn.run(turns, minutes, quick, json)
        return result, all_in_turn.report(result)

    measure(run, json, ends_at_once=False)


def readme_table(results: Files, readme: Path = Path("README.md")) -> None:
    """Write the README's table of ratios.

    Args:
      results: JSONs of inference, train, extract or all.
      readme: the file with the table's marks.
    """
    from benchmarks import readme_table as table

    print(f"{readme}: {table.run(readme, results)} rows of ratios")


def serve_table(result: Path, page: Path = Path("docs/performance.md")) -> None:
    """Write the table of a service's speed and memory.

    Args:
      result: the JSON of serve.
      page: a page with the table's marks.
    """
    from benchmarks import serve_table as table

    print(f"{page}: {table.run(page, result)} lines of a service")


def pod_table(file: Path = Path("docs/pods.md")) -> None:
    """Compile the released recipe for TPU pods, those rows that are not done yet.

    Args:
      file: a page with the table's marks; beside it "measurements" keeps the rows.
    """
    avoid_tpu()
    from benchmarks import pod_table as table

    print(f"written: {file}, {table.run(file)} rows")


COMMANDS = {
    **Timings(RIVALS).table(),
    "bytes": step_bytes,
    "checkpoints": checkpoints,
    "engines": engines,
    "remote_input": remote_input,
    "soak": soak,
    "all": every,
    "readme_table": readme_table,
    "pod_table": pod_table,
    "serve_table": serve_table,
}

if __name__ == "__main__":
    command_line.start(COMMANDS, sys.argv[1:], "python -m benchmarks")
