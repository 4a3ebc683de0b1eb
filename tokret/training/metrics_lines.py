"""Lines of metrics: in one file on a disk, in parts in object storage.

A line is a JSON object with its `step`. Of a resumed run the lines of steps that are
repeated are dropped.
"""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from tokret.io.atomic_files import write_whole
from tokret.io.regular_files import read_file
from tokret.io.remote.fetching import require
from tokret.io.remote.objects import list_names, remove
from tokret.io.remote.uploading import Uploads, publish
from tokret.io.remote.urls import url_of

MAX_METRICS = 2**31  # bytes; a million lines take 0.3 GB
PART = 2**20  # bytes after which a part ends: each is uploaded whole


def open_metrics(
    workdir: Path, first_step: int, uploads: Uploads, warn: Callable[[str], None]
) -> "MetricsFile | MetricsParts":
    """Opens the metrics of a run for new lines, after those of its first steps."""
    if url_of(workdir) is not None:
        return MetricsParts(workdir / "metrics", first_step, uploads)
    return MetricsFile(workdir / "metrics.jsonl", first_step, warn)


class MetricsFile:
    """WORKDIR/metrics.jsonl."""

    def __init__(self, path: Path, first_step: int, warn: Callable[[str], None]):
        """Opens it for appending; `first_step` steps were done before.

        Raises:
          OSError: if it cannot be written; so do all methods.
          UserError: if it cannot be read.
        """
        self.name, self._path, self._warn = path.name, path, warn
        _drop_lines_after(path, first_step)
        self._file = path.open("a")

    def write(self, line: dict[str, Any]) -> None:
        """Appends a line."""
        self._follow(line["step"])
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def _follow(self, step: int) -> None:
        """Opens the metrics again if another file has taken their place.

        An editor or a program that synchronises folders replaces files; lines written
        to the old one would be lost. A removed one is `Workdir`'s to notice.
        """
        path = self._path
        with contextlib.suppress(FileNotFoundError):
            if not os.path.samestat(path.stat(), os.fstat(self._file.fileno())):
                _drop_lines_after(path, step)
                self._file.close()
                self._file = path.open("a")
                self._warn(
                    f"warning: {path} was replaced by another file while the run was "
                    f"training; lines from step {step} on are written to that one"
                )

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class MetricsParts:
    """WORKDIR/metrics/STEP.jsonl: each part has lines of STEP and later ones."""

    def __init__(self, folder: Path, first_step: int, uploads: Uploads):
        """Removes lines of steps after `first_step`; the first new line begins a part.

        Raises:
          OSError: if the local copy cannot be written; so do all methods.
          StorageError, UnavailableError: as `objects` does.
        """
        self.name, self._folder, self._uploads = folder.name, folder, uploads
        self._part = -1  # the step that the open part is named after
        self._file: BinaryIO | None = None
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        names = list_names(f"{url_of(folder)}")
        parts = sorted(int(n[:-6]) for n in names if re.fullmatch(r"\d{10}\.jsonl", n))
        for step in parts:
            if step > first_step:
                remove(f"{url_of(self._path(step))}")
        if kept := [step for step in parts if step <= first_step]:
            path = require(self._path(kept[-1]))
            size = path.stat().st_size
            _drop_lines_after(path, first_step)
            if path.stat().st_size != size:
                publish(path)

    def write(self, line: dict[str, Any]) -> None:
        """Appends a line, which is uploaded in the background."""
        step = line["step"]
        is_full = self._file is not None and self._file.tell() >= PART
        if self._file is None or (is_full and step > self._part):
            self.close()
            self._part = step
            self._file = self._path(step).open("ab")
        self._file.write(json.dumps(line).encode() + b"\n")
        self._file.flush()
        self._uploads.changed(self._path(self._part))

    def close(self) -> None:
        """Closes the part."""
        if self._file is not None:
            self._file.close()

    def _path(self, step: int) -> Path:
        return self._folder / f"{step:010d}.jsonl"


def _drop_lines_after(path: Path, step: int) -> None:
    """Drops the lines of steps that are repeated, and damaged ones."""
    if not path.exists():
        return
    kept = []
    text = read_file(path, MAX_METRICS).decode(errors="replace")
    for line in text.splitlines():
        # OverflowError: of a step that is infinite.
        damage = (ValueError, TypeError, LookupError, RecursionError, OverflowError)
        with contextlib.suppress(*damage):
            if 0 <= int(json.loads(line)["step"]) <= step:
                kept.append(line + "\n")
    write_whole(path, "".join(kept), path.with_suffix(".partial"))
