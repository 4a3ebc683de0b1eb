"""Datasets from what their hosts distribute, or from photos of your own.

    python -m tokret.data prepare NAME --manual_dir=DIR --data_dir=DIR [--resize=512]

NAME is gldv2, roxford5k, rparis6k, oxford5k, paris6k, revisitop1m, image_folder or
synthetic_landmarks; prepare NAME --help lists its fields, which are also those of
config.data in a training. A preparation that was stopped goes on where it was.
"""

import argparse
import inspect
import re
import sys
from pathlib import Path
from typing import Any, NoReturn

from tokret.data import datasets
from tokret.data.datasets import DATASETS
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


def _add_dataset(commands: Any, name: str) -> None:
    function = DATASETS[name]
    summary = (inspect.getdoc(function) or "").partition("\n")[0]
    command = commands.add_parser(
        name, help=summary, description=summary, allow_abbrev=False
    )
    words = argument_help(function)
    for field, parameter in inspect.signature(function).parameters.items():
        if field == "data_dir":
            command.add_argument("--data_dir", default=DATA_DIR, help=words[field])
        elif isinstance(parameter.default, bool):
            command.add_argument(
                f"--{field}", action="store_true", help=words.get(field)
            )
        else:
            required = parameter.default is parameter.empty
            command.add_argument(
                f"--{field}",
                type=_kind(parameter),
                # Those not given are left to the function.
                default=argparse.SUPPRESS,
                required=required,
                help=words.get(field),
            )


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
    for name in DATASETS:
        _add_dataset(names, name)
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


def main() -> None:
    """Reads the flags."""
    fields = vars(_flags().parse_args())
    fields.pop("command")
    prepare(fields.pop("name"), fields.pop("data_dir"), fields)


if __name__ == "__main__":
    sys.exit(exit_status(main))
