"""The checkpoints of a run, or the one of a conversion.

    python -m tokret.checkpoints list DIR
    python -m tokret.checkpoints show DIR [--step=N]
    python -m tokret.checkpoints prune DIR --keep=N [--keep_best[=MEASURE]] [--dry_run]

list reads every checkpoint and says which are whole; the best is marked. show prints
what one says of itself, and its arrays; DIR may be its own folder, too. prune removes
all but the newest N that are whole, and the best; what is damaged it leaves.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import NoReturn

import jax
from tqdm import tqdm

from tokret.command_line import quieten
from tokret.configuration import part
from tokret.errors import UserError, exit_status
from tokret.training.checkpoint_description import read_config
from tokret.training.checkpoint_inspection import (
    Inspection,
    inspect_checkpoint,
    size_of,
)
from tokret.training.checkpoints import INCOMPLETE, list_measured, list_steps, remove
from tokret.training.interruption import lock_workdir
from tokret.training.retention import MEASURES, Retention, best_step
from tokret.training.weights import find_checkpoint

MIB = 2**20
OWN = "the run's own"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; python -m tokret.checkpoints --help says more")


def _flags() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m tokret.checkpoints",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("list", "show", "prune"):
        command = commands.add_parser(name, allow_abbrev=False)
        command.add_argument("folder", type=_path, metavar="DIR")
    show_command, prune_command = (commands.choices[name] for name in ("show", "prune"))
    show_command.add_argument(
        "--step", help="checkpoint, or the word best; the newest if not given"
    )
    add = prune_command.add_argument
    add("--keep", type=int, required=True, help="how many of the newest stay")
    add(
        "--keep_best",
        nargs="?",
        const=OWN,
        default="",
        metavar="MEASURE",
        help=f"the best stays, too: by {', '.join(MEASURES)}, or as the run says",
    )
    add("--dry_run", action="store_true", help="only say what would be removed")
    return parser


def _path(name: str) -> Path:
    return Path(name).expanduser()


def printable(text: str) -> str:
    """Makes a text of others safe for a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def examine_all(workdir: Path) -> dict[int, Inspection]:
    """Reads all checkpoints of a run, by step.

    Raises:
      UserError: if it has none.
    """
    find_checkpoint(workdir)
    steps = tqdm(list_steps(workdir), unit="checkpoint", leave=False, disable=None)
    folder = workdir / "checkpoints"
    return {
        step: inspect_checkpoint(folder / str(step), read_all=True) for step in steps
    }


def measure_of(workdir: Path) -> str:
    """Returns the measure by which a run keeps its best, "" if by none."""
    try:
        config = read_config(find_checkpoint(workdir))
        name = part(config, "run", dict).get("keep_best")
    except UserError:
        return ""
    return name if isinstance(name, str) and name in MEASURES else ""


def table(found: dict[int, Inspection], measure: str) -> str:
    """Formats what was found, one line a checkpoint."""
    measured = {
        step: it.description.measured if it.description else {}
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
        loss = f"{numbers['loss']:.3f}" if "loss" in numbers else "-"
        shares = (
            f"{numbers[n]:.1%}" if n in numbers else "-" for n in ("top1", "top5")
        )
        state = f"damaged: {printable(it.problem)}" if it.problem else "whole"
        state += f", best {measure}" if step == best else ""
        size, (top1, top5) = it.size / MIB, shares
        lines.append(
            f"{step:>9}  {written:<16}  {size:>8.1f}  {loss:>7}  {top1:>6}  {top5:>6}  "
            f"{state}"
        )
    return "\n".join(lines)


def list_command(flags: argparse.Namespace) -> None:
    """Prints a table of a run's checkpoints."""
    workdir: Path = flags.folder
    found = examine_all(workdir)
    print(table(found, measure_of(workdir)))
    folder = workdir / "checkpoints"
    for path in sorted(path for pattern in INCOMPLETE for path in folder.glob(pattern)):
        print(
            f"{printable(path.name)}: {size_of(path) / MIB:.1f} MiB, half-written or "
            "half-removed; the next start of the run clears it away"
        )
    for path in sorted((workdir / "damaged").glob("*")):
        print(
            f"damaged/{printable(path.name)}: {size_of(path) / MIB:.1f} MiB that a "
            "start could not read and put aside; remove it yourself"
        )


def show(flags: argparse.Namespace) -> None:
    """Prints what a checkpoint says of itself, and its arrays."""
    path: Path = flags.folder
    if list_steps(path) or flags.step is not None or not path.is_dir():
        path = find_checkpoint(path, flags.step)
    found = inspect_checkpoint(path, read_all=False)
    if found.problem:
        raise UserError(f"{path}: {found.problem}")
    print(f"{path}: {found.size / MIB:.1f} MiB on disk")
    for name, value in vars(found.description).items():
        print(f"{name}: {json.dumps(value, indent=2)}")
    for name, array in found.arrays.items():
        shape = "x".join(map(str, array.shape)) or "scalar"
        print(
            f"  {printable(name):<60} {array.dtype:<9} {shape:<16} {array.nbytes:>12,}"
        )
    total = sum(array.nbytes for array in found.arrays.values())
    print(f"{len(found.arrays)} arrays, {total:,} bytes")


def prune(flags: argparse.Namespace) -> None:
    """Removes checkpoints that are not to be kept."""
    workdir: Path = flags.folder
    find_checkpoint(workdir)
    measure = measure_of(workdir) if flags.keep_best == OWN else flags.keep_best
    if flags.keep_best and not measure:
        raise UserError(f"--keep_best needs one of {', '.join(MEASURES)} for this run")
    retention = Retention(keep=flags.keep, keep_best=measure)
    if flags.dry_run:
        _prune(workdir, retention, dry=True)
        return
    with lock_workdir(workdir):
        _prune(workdir, retention, dry=False)


def _prune(workdir: Path, retention: Retention, *, dry: bool) -> None:
    found = examine_all(workdir)
    for step, it in found.items():
        if it.problem:
            print(f"step {step} is damaged and left: {printable(it.problem)}")
    whole = {
        step: numbers
        for step, numbers in list_measured(workdir).items()
        if step in found and not found[step].problem
    }
    removed = retention.steps_to_remove(whole)
    for step in removed:
        print(f"{'would remove' if dry else 'removing'} {found[step].path}", flush=True)
        if not dry:
            remove(found[step].path)
    freed = sum(found[step].size for step in removed) / MIB
    kept = ", ".join(map(str, sorted(whole.keys() - set(removed)))) or "none"
    print(f"{len(removed)} checkpoints, {freed:.1f} MiB; kept: {kept}")


def main() -> None:
    """Reads the flags."""
    quieten()
    # A run may hold the accelerator.
    jax.config.update("jax_platforms", "cpu")
    flags = _flags().parse_args()
    commands = {"list": list_command, "show": show, "prune": prune}
    commands[flags.command](flags)


if __name__ == "__main__":
    sys.exit(exit_status(main))
