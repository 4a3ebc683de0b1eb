"""Timings of tokret on this machine; plans for TPU pods."""

import importlib
import json as json_format
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from tokret.benchmark.rivals import Rivals
from tokret.commands.serve import require_libraries
from tokret.errors import UserError
from tokret.io.atomic_files import write_whole
from tokret.io.remote.outputs import prepare_file
from tokret.io.remote.uploading import publish
from tokret.option_types import RemotePath
from tokret.runtime.allocation import keep_freed_memory

# Modules of tokret.benchmark are imported when they run: what is set before jax is
# imported depends on the benchmark.
Result = dict[str, Any]
CASES_ARGS = """

Args:
  turns: how often each case is timed.
  json: a file for the figures.
  cases: only cases with any of these texts, with commas, in their names, such as
    'resnet50 float32 8x512'.
  minutes: no case starts after so many.
"""


def measure(
    run: Callable[[], tuple[Result, str]],
    json: RemotePath | None,
    *,
    ends_at_once: bool,
) -> None:
    """Runs a benchmark, writes its figures to `json` and prints its report.

    Where it `ends_at_once`, SIGTERM and SIGHUP stay alone: a compiler runs for minutes,
    in which Python's handlers are not called. Otherwise they end the processes that the
    benchmark has started too.
    """
    prepare_file(json, "json")
    for number in () if ends_at_once else (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup sets it
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        result, report = run()
    except ModuleNotFoundError as error:
        raise UserError(f"this needs {error.name}, which is not installed") from error
    # First, since the reader of the output may have closed the pipe.
    if json is not None:
        write_whole(json.resolve(), json_format.dumps(result, indent=2) + "\n")
        publish(json)
    print(report)


def avoid_tpu() -> None:
    """Keeps jax, not imported yet, from searching for a TPU, here or in the cloud."""
    os.environ |= {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1"}


class Timings:
    """Commands that time tokret on this machine.

    Args:
      rivals: other programs that are timed in the same turns.
    """

    def __init__(self, rivals: Rivals) -> None:
        self.rivals = rivals

    def _time(
        self, module: str, run: Callable[[Any], Result], json: RemotePath | None
    ) -> None:
        """Runs a benchmark of a module, which is imported first, and reports on it."""

        def judged() -> tuple[Result, str]:
            if module == "speed":  # keeps freed memory as train does, and a GPU's free
                keep_freed_memory()
                os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
            imported = importlib.import_module(f"tokret.benchmark.{module}")
            result = run(imported)
            return self.rivals.judge(result, imported.report(result))

        measure(judged, json, ends_at_once=False)

    def _cases(self, name: str, summary: str) -> Callable[..., None]:
        """Returns the command of a benchmark of many cases."""

        def command(
            cases: str = "",
            minutes: float = 10.0,
            turns: int = 7,
            json: RemotePath | None = None,
        ) -> None:
            def run(speed: Any) -> Result:
                settings = speed.Settings(turns, self.rivals)
                return speed.run(name, settings, cases=cases, minutes=minutes)

            self._time("speed", run, json)

        command.__doc__ = summary + CASES_ARGS
        return command

    def start(self, turns: int = 7, json: RemotePath | None = None) -> None:
        """Time compiling in a first and in a second start.

        Args:
          turns: how often each case is timed.
          json: a file for the figures.
        """
        self._time("speed", lambda speed: speed.run_single("start", turns), json)

    def scan(
        self,
        rows: int | None = None,
        store: Literal["bfloat16", "float32"] = "bfloat16",
        turns: int = 7,
        json: RemotePath | None = None,
    ) -> None:
        """Time search beside reading the database.

        Args:
          rows: descriptors; None: a million, 100,000 on a CPU.
          store: their dtype.
          turns: how often each case is timed.
          json: a file for the figures.
        """
        chosen = {"rows": rows, "store": store}
        self._time("speed", lambda s: s.run_single("scan", turns, **chosen), json)

    def training_input(
        self, photos: Path | None = None, turns: int = 7, json: RemotePath | None = None
    ) -> None:
        """Time training's input on one core.

        Args:
          photos: a folder of photos; None: noise.
          turns: how often each case is timed.
          json: a file for the figures.
        """
        if photos is not None and not photos.is_dir():
            raise UserError(f"photos={photos} is not a folder")
        rival = self.rivals.views
        self._time("input_pipeline", lambda m: m.run(photos, turns, rival()), json)

    def search(
        self,
        database: int = 1_000_000,
        dim: int = 1024,
        queries: int = 70,
        forms: tuple[str, ...] = ("bf16", "int8", "pq128", "pq1024"),
        scratch: Path | None = None,
        turns: int = 7,
        json: RemotePath | None = None,
    ) -> None:
        """Time the search of a million descriptors, exact and compressed.

        Args:
          database: distractors behind 6,322 labelled images.
          dim: dimensions.
          queries: queries, which are also searched one by one.
          forms: compressions to measure; none if empty.
          scratch: a folder for the descriptors until the end (4.1 GB for a million).
          turns: how often each case is timed.
          json: a file for the figures.
        """
        chosen = (database, dim, queries, turns, scratch, forms, self.rivals)
        self._time("search_speed", lambda m: m.run(*chosen), json)

    def serve(
        self,
        photos: int = 100_000,
        many: int = 1_000_000,
        dim: int = 1024,
        clients: int = 16,
        scratch: Path | None = None,
        turns: int = 7,
        json: RemotePath | None = None,
    ) -> None:
        """Time a service of an index beside the same work in one process.

        Args:
          photos: of the index that queries search.
          many: of the index whose start, memory and growth are measured; 0: none.
          dim: dimensions of the descriptors.
          clients: queries at once.
          scratch: a folder for the indexes until the end (5 GB for a million photos).
          turns: how often each case is timed.
          json: a file for the figures.
        """
        require_libraries()

        def run(speed: Any) -> Result:
            sizes = speed.Sizes(photos, many, dim)
            return speed.run(sizes, clients, turns, scratch)

        self._time("serve_speed", run, json)

    def table(self) -> dict[str, Callable[..., None]]:
        """Returns the commands by name."""
        return {
            "inference": self._cases("inference", "Time descriptors of a batch."),
            "train": self._cases("train", "Time training steps of a batch."),
            "extract": self._cases(
                "extract", "Time three-scale descriptors of mixed shapes."
            ),
            "scan": self.scan,
            "start": self.start,
            "input": self.training_input,
            "search": self.search,
            "serve": self.serve,
        }


def plan(
    config: str,
    topology: str,
    what: Literal["train", "extract", "search"] = "train",
    model: int = 1,
    batch_size: int | None = None,
    photos: int | None = None,
    classes: int | None = None,
    database: int = 1_000_000,
    store: Literal["float32", "bfloat16"] = "float32",
    json: RemotePath | None = None,
    fields: Sequence[str] = (),
) -> None:
    """Memory, work and least time of a TPU pod's chips, compiled without a TPU.

    Any field of the config can be changed: --config.FIELD=VALUE.

    Args:
      config: the config file, such as configs/gldv2_r50.py.
      topology: the pod, as v5e:16x16 or v4:2x2x4.
      what: the program.
      model: chips that split the class matrix.
      batch_size: images, or queries, of all chips; None: the config's.
      photos: the number to train with; None: GLDv2-clean's.
      classes: of the photos; None: GLDv2-clean's.
      database: descriptors to search in.
      store: the database's dtype.
      json: a file for the figures.
      fields: changes to the config.
    """
    names = ("model", "batch_size", "photos", "classes", "database")
    counts = (model, batch_size, photos, classes, database)
    for name, count in zip(names, counts, strict=True):
        if count is not None and count < 1:
            raise UserError(f"{name}={count} is not at least 1")
    avoid_tpu()

    def run() -> tuple[Result, str]:
        from tokret.benchmark import plan
        from tokret.config.files import load_config

        changes = [field.removeprefix("--config.") for field in fields]
        name = " ".join([Path(config).name.replace(".py", ""), *changes])
        request = plan.PlanRequest(what, name, topology, *counts, store)
        result = plan.run(load_config(config, fields), request)
        return result, plan.report(result)

    measure(run, json, ends_at_once=True)


COMMANDS = {**Timings(Rivals()).table(), "plan": plan}
