"""Compares heads, each trained as long as the others with rates of its own."""

import dataclasses
import itertools
import json
import math
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tokret.command_line import FIELD
from tokret.comparison.table import figures, markdown
from tokret.comparison.trials import CONFIGS, DivergedError, Trial
from tokret.config.files import split_override
from tokret.errors import UserError
from tokret.io.atomic_files import write_whole
from tokret.io.file_locks import held
from tokret.io.remote.outputs import prepare_file, prepare_folder
from tokret.io.remote.uploading import publish
from tokret.io.remote.urls import url_of
from tokret.models.build import HEADS
from tokret.option_types import RemotePath
from tokret.runtime.ending import keeps
from tokret.runtime.progress import progress_bar

# Options of tokret eval, which also reports the numbers before re-ranking.
MEASUREMENTS = {
    "three": (f"--scales=1,{2**0.5},{2**-0.5}",),
    "expansion": ("--scales=1", "--rerank=aqe:n=3"),
    "reciprocal": ("--scales=1", "--rerank=k_reciprocal"),
}
# Fields that the comparison itself decides.
OWN = ("seed", "schedule.base_lr", "optimiser.trunk_lr_multiplier", "data.root")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What is compared.

    Attributes:
      output: folder of all runs.
      config: a config file; None: configs/grocery_heads.py.
      root: folder of classes to train on; None: the config's photos.
      unseen: folder of classes to evaluate on; None: the config's.
      json: a file for the figures.
      heads: their names.
      rates: learning rates of head and classifier to try.
      trunk_rates: learning rates of the trunk to try.
      search_epochs: epochs with each pair of rates.
      held_out: fraction of the classes that the rates are chosen by.
      seeds: trainings of a head.
    """

    output: RemotePath
    config: Path | None = None
    root: Path | None = None
    unseen: Path | None = None
    json: RemotePath | None = None
    heads: tuple[str, ...] = ("token", "gem", "rmac", "solar", "netvlad")
    rates: tuple[float, ...] = (0.0005, 0.005, 0.02)
    trunk_rates: tuple[float, ...] = (0.005,)
    search_epochs: int = 4
    held_out: float = 0.25
    seeds: int = 3


@dataclasses.dataclass(frozen=True)
class Given(Comparison):
    """A comparison with absolute paths and changes to the config, by name."""

    fields: Mapping[str, str] = dataclasses.field(default_factory=dict)


def _check_values(given: Given) -> None:
    """Refuses numbers and names that would fail hours later."""
    for number, head in enumerate(given.heads):
        if head not in HEADS or head in given.heads[:number]:
            raise UserError(
                f"heads: {head!r} is not one of {', '.join(HEADS)}, or there twice"
            )
    for name in ("rates", "trunk_rates"):
        rates = getattr(given, name)
        if not rates or not all(0 < rate < math.inf for rate in rates):
            raise UserError(f"{name}: learning rates are above 0")
    if not 0 < given.held_out < 1:
        raise UserError(f"held_out={given.held_out} is not between 0 and 1")
    for name in ("seeds", "search_epochs"):
        if getattr(given, name) < 1:
            raise UserError(f"{name}={getattr(given, name)} is not at least 1")
    for name in given.fields:
        if name in OWN or name.startswith("data.benchmark_"):
            raise UserError(f"{FIELD}{name}: the comparison itself decides it")


def _check_paths(given: Given) -> None:
    """Refuses files and folders that would fail hours later."""
    if bool(given.root) != bool(given.unseen):
        raise UserError("--root and --unseen go together; give both, or neither")
    prepare_folder(given.output, "output")
    if given.json and url_of(given.json) is None:
        if given.json.is_dir() or not given.json.parent.is_dir():
            raise UserError(f"json={given.json} must be a file in a folder that exists")
    prepare_file(given.json, "json")
    if given.config and not given.config.is_file():
        raise UserError(f"config={given.config} is not a file; name one of configs/")


def _trial(
    given: Given, head: str, kind: str, rates: tuple[float, float], **fields: object
) -> Trial:
    """Makes a training with rates of the head and of the trunk."""
    places = {"data.root": given.root, "data.benchmark_root": given.unseen}
    rate, trunk = rates
    changes: dict[str, object] = {
        **{field: place for field, place in places.items() if place},
        **given.fields,
        "schedule.base_lr": rate,
        "optimiser.trunk_lr_multiplier": trunk / rate,
        **fields,
    }
    config = given.config or CONFIGS / "grocery_heads.py"
    folder = given.output / head / f"{kind}-{rate:g}-{trunk:g}"
    return Trial(f"{config}:{head}", changes, folder)


def choose_rates(given: Given, head: str, bar: tqdm) -> dict[str, Any]:
    """Tries every pair of rates on held-out classes.

    Returns "tried", rows of rate, trunk_lr and mAP or what was refused, and "best".
    """
    tried: list[dict[str, Any]] = []
    fields = {
        "epochs": given.search_epochs,
        "data.benchmark_fraction": given.held_out,
        "data.benchmark_root": "",
    }
    for rates in itertools.product(given.rates, given.trunk_rates):
        trial = _trial(given, head, "rate", rates, **fields)
        row: dict[str, Any] = dict(zip(("rate", "trunk_lr"), rates, strict=True))
        try:
            trial.train()
            row["mAP"] = trial.measure("held-out", ["--scales=1"])["all"]["mAP"]
        except DivergedError as error:
            row |= {"mAP": 0.0, "refused": str(error)}
        bar.update()
        tried.append(row)
    best = max(tried, key=lambda row: row["mAP"])
    if "refused" in best:
        raise UserError(f"no rates suit {head}: {best['refused']}")
    return {"tried": tried, "best": best}


def train_seeds(
    given: Given, head: str, best: Mapping[str, Any], bar: tqdm
) -> list[dict[str, Any]]:
    """Trains on all classes with the best rates, once a seed, and measures."""
    seeds = []
    for seed in range(given.seeds):
        rates = (best["rate"], best["trunk_lr"])
        trial = _trial(given, head, f"seed-{seed}", rates, seed=seed)
        trial.train()
        found = {name: trial.measure(name, args) for name, args in MEASUREMENTS.items()}
        bar.update()
        seeds.append({"seed": seed, **found})
    return seeds


def compare(given: Given) -> None:
    """Runs what is missing and prints the table."""
    pairs = len(given.rates) * len(given.trunk_rates)
    trials = len(given.heads) * (pairs + given.seeds)
    found: dict[str, Any] = {}
    with progress_bar(total=trials, unit="run") as bar:
        for head in given.heads:
            bar.set_description(head)
            found[head] = choose_rates(given, head, bar)
            found[head]["seeds"] = train_seeds(given, head, found[head]["best"], bar)
            if given.json:
                write_whole(given.json, json.dumps(found, indent=1) + "\n")
                publish(given.json)
    rows = {head: figures(result["seeds"]) for head, result in found.items()}
    print(markdown(rows), end="")


def main(comparison: Comparison, fields: Sequence[str] = ()) -> None:
    """Compare heads, each trained as long as the others with rates of its own.

    First each head is trained with each pair of learning rates on some classes of the
    folder --root; the best retrieves best among the other classes. Then it is trained
    on all classes, once a seed, and evaluated on those of --unseen, which nothing was
    chosen by. The same command resumes after a kill; when photos changed, name another
    output. Any field of the config can be changed: --config.FIELD=VALUE.

    Args:
      comparison: what is compared.
      fields: changes to the config.
    """
    changes = dict(split_override(text) for text in fields)
    values: dict[str, Any] = vars(comparison)
    paths = {n: v.resolve() for n, v in values.items() if isinstance(v, Path)}
    given = Given(**{**values, **paths}, fields=changes)
    _check_values(given)
    _check_paths(given)
    # A signal to end ends the process that is training too.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    given.output.mkdir(parents=True, exist_ok=True)
    refusal = f"output={given.output}: another comparison is at work in it"
    keeps(f"what is trained is kept in {given.output}; the same command resumes")
    with held(given.output / ".lock", refusal):
        compare(given)
