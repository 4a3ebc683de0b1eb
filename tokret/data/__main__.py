"""Datasets from what their hosts distribute, or from photos of your own.

    python -m tokret.data prepare NAME --manual_dir=DIR --data_dir=DIR [--resize=512]
    python -m tokret.data check NAME --manual_dir=DIR [--output=FILE.csv]

NAME is gldv2, roxford5k, rparis6k, oxford5k, paris6k, revisitop1m, image_folder or
synthetic_landmarks; prepare NAME --help lists its fields, which are also those of
config.data in a training. A preparation that was stopped goes on where it was.

check examines what was downloaded, or without --manual_dir (image_folder: --root or
--table) what was prepared, and writes nothing but the CSV. It ends with 0 if nothing is
wrong, 1 if something is, and 2 after a mistake in the command.
"""

import argparse
import inspect
import re
import sys
from pathlib import Path
from typing import Any, NoReturn

from tokret.data import datasets
from tokret.data.checking import check as checking
from tokret.data.datasets import DATASETS, prepare_function
from tokret.errors import UserError, exit_status

DATA_DIR = "~/.cache/tokret"  # as in configs/base.py


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; python -m tokret.data --help says more")


def argument_help(function: Any) -> dict[str, str]:
    """Reads what a function's arguments are from its docstring, by name."""
    doc = inspect.getdoc(function) or ""
    section = re.search(r"\nArgs:\n(.*?)(?:\n\n|\Z)", doc, re.DOTALL)
    entries = re.findall(
        r"^  (\w+): (.*(?:\n    .*)*)", section[1] if section else "", re.MULTILINE
    )
    # argparse takes a percent sign for a placeholder.
    return {name: " ".join(text.split()).replace("%", "%%") for name, text in entries}


def _add_command(commands: Any, name: str, function: Any) -> argparse.ArgumentParser:
    """Adds a command with a function's fields; those not given are left to it."""
    documented = getattr(function, "func", function)  # of a partial
    summary = (inspect.getdoc(documented) or "").partition("\n")[0]
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=summary, allow_abbrev=False
    )
    words = argument_help(documented)
    command.add_argument(
        "--data_dir", default=DATA_DIR, help="where prepared datasets lie"
    )
    for field, parameter in inspect.signature(function).parameters.items():
        if field in ("data_dir", "report"):
            continue
        options: dict[str, Any] = {"action": "store_true"}
        if parameter.default is True:  # --no-FIELD
            options = {"action": argparse.BooleanOptionalAction}
        elif parameter.default is not False:
            options = {"type": _kind(parameter)}
        command.add_argument(
            f"--{field}", default=argparse.SUPPRESS, help=words.get(field), **options
        )
    return command


def _add_check(commands: Any, name: str) -> None:
    command = _add_command(commands, name, checking.DOWNLOADS.get(name, _prepared_only))
    add = command.add_argument
    add("--output", default=f"check-{name}.csv", help="the CSV of all that is wrong")
    add("--smallest", default=32, type=int, help="pixels of a shorter side not tiny")
    add("--workers", default=0, type=int, help="processes; 0 stands for one a core")


def _prepared_only() -> None:
    """Examines what was prepared: there are no sources."""


def _kind(parameter: inspect.Parameter) -> type:
    """The type of a field; one that may be None has its default there."""
    kinds: tuple[type, ...] = (float, int, str)
    return next(kind for kind in kinds if parameter.annotation in (kind, kind | None))


def _flags() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m tokret.data",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    prepare_command = commands.add_parser("prepare", allow_abbrev=False)
    names = prepare_command.add_subparsers(dest="name", required=True, metavar="NAME")
    check_command = commands.add_parser("check", allow_abbrev=False)
    checks = check_command.add_subparsers(dest="name", required=True, metavar="NAME")
    for name in DATASETS:
        _add_command(names, name, prepare_function(name))
        _add_check(checks, name)
    return parser


def prepare(name: str, data_dir: str, fields: dict[str, Any]) -> None:
    """Prepares a dataset and says where it lies and what it holds."""
    dataset = datasets.prepare(data_dir, name=name, **fields)
    splits = dataset.builder.info.splits
    total = sum(split.num_examples for split in splits.values())
    parts = ", ".join(
        f"{split} {info.num_examples:,}" for split, info in splits.items()
    )
    print(  # noqa: T201
        f"{name}: {total:,} photos ({parts}) in {Path(dataset.builder.data_path)}"
    )


def check(name: str, data_dir: str, fields: dict[str, Any]) -> bool:
    """Examines a dataset and prints what is wrong; says whether nothing is."""
    folder, output = (Path(p).expanduser() for p in (data_dir, fields.pop("output")))
    options = {field: fields.pop(field) for field in ("smallest", "workers")}
    report, is_sound = checking.check(name, folder, output, **options, fields=fields)
    print(report)  # noqa: T201
    return is_sound


def main() -> None:
    """Reads the flags."""
    fields = vars(_flags().parse_args())
    command, name, data_dir = (fields.pop(f) for f in ("command", "name", "data_dir"))
    if command == "prepare":
        prepare(name, data_dir, fields)
    elif not check(name, data_dir, fields):
        sys.exit(1)


if __name__ == "__main__":
    sys.exit(exit_status(main))
