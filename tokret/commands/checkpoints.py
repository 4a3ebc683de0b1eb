"""The checkpoints of a run: list, show, prune."""

import contextlib
import fnmatch
import json
import time
from pathlib import Path
from typing import Annotated, Literal

import jax
import tyro

from tokret.command_line import log
from tokret.config.parsing import to_tree
from tokret.config.tree import Config
from tokret.errors import UserError
from tokret.io.remote.objects import list_objects
from tokret.io.remote.urls import url_of
from tokret.names import counted, printable
from tokret.option_types import RemotePath
from tokret.runtime.progress import progress_bar
from tokret.training.checkpoint_inspection import (
    Inspection,
    inspect_checkpoint,
    nbytes_of,
    size_of,
)
from tokret.training.checkpoint_metadata import read_config, read_metadata
from tokret.training.checkpoints import INCOMPLETE, list_measured, list_steps, remove
from tokret.training.remote_runs import drop_arrays, fetch_run
from tokret.training.retention import best_step, steps_to_remove
from tokret.training.weights import find_checkpoint
from tokret.training.workdir import lock_workdir

MIB = 2**20
Folder = Annotated[RemotePath, tyro.conf.Positional]


def examine_all(workdir: Path) -> dict[int, Inspection]:
    """Reads all checkpoints of a run, by step; UserError if it has none."""
    find_checkpoint(fetch_run(workdir))
    found = {}
    for step in progress_bar(list_steps(workdir), unit="checkpoint", leave=False):
        path = workdir / "checkpoints" / str(step)
        found[step] = inspect_checkpoint(path, read_all=True)
        drop_arrays(path)
    return found


def sizes_in(folder: Path) -> dict[str, int]:
    """Returns the bytes of what is directly in a folder, by name, sorted."""
    url = url_of(folder)
    if url is None:
        return {path.name: size_of(path) for path in sorted(folder.glob("*"))}
    found: dict[str, int] = {}
    for name, entry in list_objects(url).items():
        first = name.partition("/")[0]
        found[first] = found.get(first, 0) + entry.size
    return found


def is_incomplete(name: str, workdir: Path) -> bool:
    """Whether a start clears an entry of the folder of checkpoints away."""
    if url_of(workdir) is not None and name.isdecimal():
        return int(name) not in list_steps(workdir)
    return any(fnmatch.fnmatch(name, pattern) for pattern in INCOMPLETE)


def measure_of(workdir: Path) -> str:
    """Returns the measure by which a run keeps its best, "" if by none.

    Where config.json or the newest checkpoint is damaged, an older one is read.
    """
    steps = reversed(list_steps(workdir))
    paths = [workdir / "checkpoints" / str(step) for step in steps]
    for read in (read_config, lambda path: read_metadata(path).config):
        for path in paths:
            with contextlib.suppress(UserError):
                config = read(path)
                return config.run.keep_best if isinstance(config, Config) else ""
    return ""


def table(found: dict[int, Inspection], measure: str) -> str:
    """Formats what was found, one line a checkpoint."""
    measured = {
        step: it.metadata.measured if it.metadata else {}
        for step, it in found.items()
        if not it.problem
    }
    best = best_step(measured, measure)
    lines = [
        f"{'step':>9}  {'written':<16}  {'MiB':>8}  {'loss':>7}  {'top1':>6}  top5"
    ]
    for step, it in found.items():
        numbers = measured.get(step, {})
        written = time.strftime("%Y-%m-%d %H:%M", time.localtime(it.written))
        loss, top1, top5 = (
            f"{numbers[name]:{form}}" if name in numbers else "-"
            for name, form in (("loss", ".3f"), ("top1", ".1%"), ("top5", ".1%"))
        )
        state = printable(it.problem) or "whole"
        state += f", best {measure}" if step == best else ""
        lines.append(
            f"{step:>9}  {written:<16}  {it.size / MIB:>8.1f}  {loss:>7}  {top1:>6}  "
            f"{top5:>6}  {state}"
        )
    return "\n".join(lines)


def list_all(workdir: Folder) -> None:
    """Read every checkpoint, and list which are whole and which is the best.

    Args:
      workdir: the folder of the run.
    """
    jax.config.update("jax_platforms", "cpu")  # a run may hold the accelerator
    found = examine_all(workdir)
    log(table(found, measure_of(workdir)))
    for name, size in sizes_in(workdir / "checkpoints").items():
        if is_incomplete(name, workdir):
            log(
                f"{printable(name)}: {size / MIB:.1f} MiB, half-written or "
                "half-removed; the next start of the run clears it away"
            )
    for name, size in sizes_in(workdir / "damaged").items():
        log(
            f"damaged/{printable(name)}: {size / MIB:.1f} MiB that a "
            "start could not read and moved; remove it yourself"
        )


def show(folder: Folder, step: str | None = None) -> None:
    """Print the description of a checkpoint, and its arrays.

    Args:
      folder: of a run, a conversion, or one checkpoint.
      step: checkpoint of the run, or the word best; None: the newest.
    """
    jax.config.update("jax_platforms", "cpu")  # a run may hold the accelerator
    is_run = list_steps(fetch_run(folder)) or step is not None or not folder.is_dir()
    path = find_checkpoint(folder, step) if is_run else folder
    found = inspect_checkpoint(path, read_all=False)
    drop_arrays(path)
    if found.problem:
        raise UserError(f"{path}: {found.problem}")
    log(f"{path}: {found.size / MIB:.1f} MiB on disk")
    for name, value in to_tree(found.metadata).items():
        log(f"{name}: {json.dumps(value, indent=2)}")
    for name, array in found.arrays.items():
        shape = "x".join(map(str, array.shape)) or "scalar"
        log(
            f"  {printable(name):<60} {array.dtype.name:<9} {shape:<16} "
            f"{nbytes_of(array):>12,}"
        )
    total = sum(map(nbytes_of, found.arrays.values()))
    log(f"{len(found.arrays)} arrays, {total:,} bytes")


def prune(
    workdir: Folder,
    keep: int,
    keep_best: Literal["run", "loss", "top1", "top5", "none"] = "run",
    dry_run: bool = False,
) -> None:
    """Remove old checkpoints of a run; the newest and the best are kept.

    Those that are damaged, or that cannot be verified, are left as they are.

    Args:
      workdir: the folder of the run.
      keep: how many of the newest to keep.
      keep_best: the measure of the best, which is kept too; run: the run's own,
        config.run.keep_best; none: only the newest are kept.
      dry_run: only print what would be removed.
    """
    jax.config.update("jax_platforms", "cpu")  # a run may hold the accelerator
    find_checkpoint(fetch_run(workdir))
    chosen = {"run": measure_of(workdir), "none": ""}
    measure = chosen.get(keep_best, keep_best)
    steps_to_remove({}, keep=keep, keep_best=measure)  # before arrays are read
    with contextlib.nullcontext() if dry_run else lock_workdir(workdir):
        _prune(workdir, keep, measure, dry_run)


def _prune(workdir: Path, keep: int, measure: str, dry: bool) -> None:
    found = examine_all(workdir)
    for step, it in found.items():
        if it.problem:
            log(f"step {step} is left: {printable(it.problem)}")
    whole = {
        step: numbers
        for step, numbers in list_measured(workdir).items()
        if step in found and not found[step].problem
    }
    removed = steps_to_remove(whole, keep=keep, keep_best=measure)
    for step in removed:
        log(f"{'would remove' if dry else 'removing'} {found[step].path}")
        if not dry:
            remove(found[step].path)
    freed = sum(found[step].size for step in removed) / MIB
    best = best_step(whole, measure)
    kept = ", ".join(
        f"{step} (best {measure})" if step == best else str(step)
        for step in sorted(whole.keys() - set(removed))
    )
    log(
        f"{counted(len(removed), 'checkpoint')} "
        f"{'would be ' if dry else ''}removed, {freed:.1f} MiB; kept: {kept or 'none'}"
    )


COMMANDS = {"list": list_all, "show": show, "prune": prune}
