"""Datasets from what their hosts distribute, or from photos of your own."""

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import tyro

from tokret.data import datasets
from tokret.data.checking import check as checking
from tokret.data.datasets import DATA_DIR, DATASETS, prepare_function

DataDir = Annotated[str, tyro.conf.arg(help="folder of prepared datasets.")]
Output = Annotated[Path | None, tyro.conf.arg(help="a CSV of problems; check-NAME.csv")]
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


def _with_fields(action: Callable[..., None], name: str, function: Any) -> Command:
    """Returns an action on a dataset with a function's parameters as its options."""

    def command(**options: Any) -> None:
        action(name, **options)

    fields = [
        parameter.replace(default="")
        if parameter.default is parameter.empty
        else parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.name not in ("data_dir", "report")
    ]
    own = [
        parameter
        for parameter in inspect.signature(action).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
        and parameter.name not in {field.name for field in fields}
    ]
    command.__doc__ = inspect.getdoc(getattr(function, "func", function))
    command.__signature__ = inspect.Signature(own + fields)  # type: ignore[attr-defined]
    return command


def prepare(name: str, *, data_dir: DataDir = DATA_DIR, **fields: Any) -> None:
    """Prepares a dataset and prints its folder and the numbers of photos."""
    dataset = datasets.prepare(data_dir, name=name, **fields)
    splits = dataset.builder.info.splits
    total = sum(split.num_examples for split in splits.values())
    counts = ", ".join(
        f"{split} {info.num_examples:,}" for split, info in splits.items()
    )
    print(f"{name}: {total:,} photos ({counts}) in {Path(dataset.builder.data_path)}")


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
    report, is_sound = checking.check(
        name,
        Path(data_dir).expanduser(),
        output or Path(f"check-{name}.csv"),
        smallest=smallest,
        workers=workers,
        fields=fields,
    )
    print(report)
    if not is_sound:
        sys.exit(1)


def _prepared_only() -> None:
    """Checks what was prepared: this dataset has no sources."""


COMMANDS = {
    "prepare": ByDataset(
        lambda name: _with_fields(prepare, name, prepare_function(name))
    ),
    "check": ByDataset(
        lambda name: _with_fields(
            check, name, checking.DOWNLOADS.get(name, _prepared_only)
        )
    ),
}
