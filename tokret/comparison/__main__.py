r"""Compares heads by training each as long as the others, with rates of its own.

    python -m tokret.comparison --output=DIR [--root=PHOTOS --unseen=OTHER_PHOTOS] \
        [--json=FILE]

Rates first: each head is trained with each of them on some classes of PHOTOS, and the
best finds most among the other classes. Then it is trained on all, once a seed, and
measured on OTHER_PHOTOS, which nothing was chosen by. The same command goes on after a
kill; photos that changed meanwhile want another DIR. Without --root and --unseen the
config's own photos are taken.
"""

import argparse
import itertools
import json
import math
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from tqdm import tqdm

from tokret.comparison.table import figures, markdown
from tokret.comparison.trials import ROOT, DivergedError, Trial
from tokret.errors import UserError, exit_status
from tokret.io.atomic_files import write_whole
from tokret.io.file_locks import held
from tokret.models.build import HEADS

# eval.py tells the numbers before re-ranking too.
MEASUREMENTS = {
    "three": (f"--scales=1,{2**0.5},{2**-0.5}",),
    "expansion": ("--scales=1", "--rerank=aqe:n=3"),
    "reciprocal": ("--scales=1", "--rerank=k_reciprocal"),
}


# What the comparison itself decides.
OWN = ("seed", "schedule.base_lr", "optimiser.trunk_lr_multiplier", "data.root")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; python -m tokret.comparison --help says more")


def _rates(text: str) -> tuple[float, ...]:
    rates = tuple(float(word) for word in text.split(","))
    if not all(0 < rate < math.inf for rate in rates):
        raise ValueError
    return rates


def _share(text: str) -> float:
    share = float(text)
    if not 0 < share < 1:
        raise ValueError
    return share


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise ValueError
    return count


def _path(text: str) -> Path:
    if not text:
        raise ValueError
    return Path(text).expanduser().resolve()


def _field(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ValueError
    return name, value


def _flags() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m tokret.comparison",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--config", type=_path, help="a recipe (configs/grocery_heads.py)")
    add("--root", type=_path, help="folder of classes to train on")
    add("--unseen", type=_path, help="folder of classes to measure on")
    add("--output", type=_path, required=True, help="folder of all runs")
    add("--json", type=_path, help="where the figures go")
    add("--heads", default="token,gem,rmac,solar,netvlad", help="which, with commas")
    add(
        "--rates",
        type=_rates,
        default=(0.0005, 0.005, 0.02),
        help="learning rates of head and classifier (0.0005,0.005,0.02)",
    )
    add(
        "--trunk_rates",
        type=_rates,
        default=(0.005,),
        help="learning rates of the trunk (0.005)",
    )
    add("--search_epochs", type=_count, default=4, help="of each choice of rates (4)")
    add("--held_out", type=_share, default=0.25, help="share of classes to choose by")
    add("--seeds", type=_count, default=3, help="trainings a head (3)")
    add(
        "--fields",
        nargs="*",
        action="extend",
        type=_field,
        default=[],
        help="further NAME=VALUE of the config",
    )
    return parser


def _checked(flags: argparse.Namespace) -> list[str]:
    """The heads; refuses what would be found wrong hours later."""
    heads: list[str] = flags.heads.split(",")
    for number, head in enumerate(heads):
        if head not in HEADS or head in heads[:number]:
            raise UserError(
                f"--heads: {head!r} is not one of {', '.join(HEADS)}, or there twice"
            )
    if bool(flags.root) != bool(flags.unseen):
        raise UserError("--root and --unseen go together; give both, or neither")
    for name, _ in flags.fields:
        if name in OWN or name.startswith("data.benchmark_"):
            raise UserError(f"--fields: the comparison itself decides {name}")
    if flags.output.exists() and not flags.output.is_dir():
        raise UserError(f"--output={flags.output} is a file; name a folder")
    if flags.json and (flags.json.is_dir() or not flags.json.parent.is_dir()):
        raise UserError(f"--json={flags.json} must be a file in a folder that exists")
    if flags.config and not flags.config.is_file():
        raise UserError(f"--config={flags.config} is not a file; name one of configs/")
    return heads


def _trial(flags: argparse.Namespace, head: str, name: str, **fields: object) -> Trial:
    places = {"data.root": flags.root, "data.benchmark_root": flags.unseen}
    named = {field: place for field, place in places.items() if place}
    given = named | dict(flags.fields) | fields
    config = flags.config or ROOT / "configs" / "grocery_heads.py"
    return Trial(f"{config}:{head}", given, flags.output / head / name)


def _rate_fields(rate: float, trunk: float) -> dict[str, object]:
    return {"schedule.base_lr": rate, "optimiser.trunk_lr_multiplier": trunk / rate}


def choose_rates(flags: argparse.Namespace, head: str, bar: tqdm) -> dict[str, Any]:
    """Tries every pair of rates on held-out classes.

    Returns:
      "tried", rows of rate, trunk_lr and mAP or what was refused, and "best".
    """
    tried: list[dict[str, Any]] = []
    for rate, trunk in itertools.product(flags.rates, flags.trunk_rates):
        fields = _rate_fields(rate, trunk) | {
            "epochs": flags.search_epochs,
            "data.benchmark_fraction": flags.held_out,
            "data.benchmark_root": "",
        }
        trial = _trial(flags, head, f"rate-{rate:g}-{trunk:g}", **fields)
        row: dict[str, Any] = {"rate": rate, "trunk_lr": trunk}
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
    flags: argparse.Namespace, head: str, best: Mapping[str, Any], bar: tqdm
) -> list[dict[str, Any]]:
    """Trains on all classes with the best rates, once a seed, and measures."""
    seeds = []
    for seed in range(flags.seeds):
        fields = _rate_fields(best["rate"], best["trunk_lr"]) | {"seed": seed}
        name = f"seed-{seed}-{best['rate']:g}-{best['trunk_lr']:g}"
        trial = _trial(flags, head, name, **fields)
        trial.train()
        found: dict[str, Any] = {"seed": seed}
        for name, arguments in MEASUREMENTS.items():
            found[name] = trial.measure(name, arguments)
        bar.update()
        seeds.append(found)
    return seeds


def compare(flags: argparse.Namespace, heads: Sequence[str]) -> None:
    """Runs what is missing and prints the table."""
    trials = len(heads) * (len(flags.rates) * len(flags.trunk_rates) + flags.seeds)
    found: dict[str, Any] = {}
    with tqdm(total=trials, unit="run", disable=None) as bar:
        for head in heads:
            bar.set_description(head)
            found[head] = choose_rates(flags, head, bar)
            seeds = train_seeds(flags, head, found[head]["best"], bar)
            found[head]["seeds"] = seeds
            if flags.json:
                write_whole(flags.json, json.dumps(found, indent=1) + "\n")
    rows = {head: figures(result["seeds"]) for head, result in found.items()}
    print(markdown(rows), end="")


def main() -> None:
    """Reads the flags; a signal to end ends the program that is running too."""
    flags = _flags().parse_args()
    heads = _checked(flags)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    flags.output.mkdir(parents=True, exist_ok=True)
    refusal = f"--output={flags.output}: another comparison is at work in it"
    with held(flags.output / ".lock", refusal):
        compare(flags, heads)


if __name__ == "__main__":
    sys.exit(exit_status(main))
