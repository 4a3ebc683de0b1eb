"""Datasets from what their hosts distribute, or from photos of your own."""

import inspect
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import tyro

from tokret.command_line import log
from tokret.config.datasets import DATASETS as CONFIGS
from tokret.config.parsing import field_types, plain_type
from tokret.data import datasets
from tokret.data.checking import check as checking
from tokret.data.datasets import DATA_DIR, DATASETS, prepare_function
from tokret.io.remote.urls import check_url, is_url, path_of
from tokret.names import counted
from tokret.option_types import RemotePath

DataDir = Annotated[str, tyro.conf.arg(help="folder or URL of prepared datasets.")]
Output = Annotated[RemotePath | None, tyro.conf.arg(help="CSV of all problems.")]
Smallest = Annotated[int, tyro.conf.arg(help="shorter sides below this are tiny.")]
Workers = Annotated[int, tyro.conf.arg(help="processes; 0: one a core.")]
Command = Callable[..., None]


class ByDataset(Mapping[str, Command]):
    """The same command for each dataset, made when it is looked up."""

    def __init__(self, make: Callable[[str], Command]) -> None:
        self._make = make

    def __getitem__(self, name: str) -> Command:
        return self._make(name)

    def __iter__(self) -> Iterator[str]:
        return iter(DATASETS)

    def __len__(self) -> int:
        return len(DATASETS)


def _command(
    action: Command, name: str, choice: Collection[str], documented: Any
) -> Command:
    """Returns an action on a dataset with fields of its config as further options."""

    def command(**options: Any) -> None:
        action(name, **options)

    parameters = list(inspect.signature(action).parameters.values())[1:-1]
    hints = field_types(CONFIGS[name])
    for field in inspect.signature(CONFIGS[name]).parameters.values():
        if field.name in choice:
            kind, meta = plain_type(hints[field.name])
            words = tyro.conf.arg(help=meta.description if meta else "")
            parameters.append(field.replace(annotation=Annotated[kind, words]))
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__doc__ = inspect.getdoc(documented)
    return command


def _prepare_command(name: str) -> Command:
    fields = field_types(CONFIGS[name]).keys() - {"name"}
    return _command(prepare, name, fields, prepare_function(name))


def _check_command(name: str) -> Command:
    return _command(check, name, checking.FIELDS, check)


def prepare(
    name: str, *, data_dir: DataDir = DATA_DIR, workers: Workers = 0, **fields: Any
) -> None:
    """Prepares a dataset and prints its folder and the numbers of photos."""
    dataset = datasets.prepare(data_dir, workers=workers, name=name, **fields)
    splits = dataset.builder.info.splits
    total = sum(split.num_examples for split in splits.values())
    counts = ", ".join(
        f"{split} {info.num_examples:,}" for split, info in splits.items()
    )
    number, folder = counted(total, "photo"), Path(dataset.builder.data_path)
    log(f"{name}: {number} ({counts}) in {folder}")
    if "label" in dataset.builder.info.features and dataset.classes < 2:
        log(
            f"note: {name}: all training photos are of one class; it cannot be trained "
            "on, which takes two classes or more"
        )


def check(
    name: str,
    *,
    data_dir: DataDir = DATA_DIR,
    output: Output = None,
    smallest: Smallest = 32,
    workers: Workers = 0,
    **fields: Any,
) -> None:
    """Checks a dataset's sources, or what was prepared; exit status 1 for problems."""
    if is_url(data_dir):
        check_url(data_dir, "data_dir")
    report, is_sound = checking.check(
        name,
        path_of(data_dir),
        output,
        smallest=smallest,
        workers=workers,
        fields=fields,
    )
    log(report)
    if not is_sound and output is None:
        log("\n--output=FILE.csv writes all of them to a CSV")
    if not is_sound:
        sys.exit(1)


COMMANDS = {"prepare": ByDataset(_prepare_command), "check": ByDataset(_check_command)}
