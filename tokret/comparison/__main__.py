"""Compares heads by training each as long as the others, with rates of its own.

    python -m tokret.comparison --output=DIR [--root=PHOTOS --unseen=OTHER_PHOTOS] \
        [--json=FILE]

Rates first: each head is trained with each of them on some classes of PHOTOS, and the
best finds most among the other classes. Then it is trained on all, once a seed, and
measured on OTHER_PHOTOS, which nothing was chosen by. The same command goes on after a
kill. Without --root and --unseen the config's photos are taken.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from tqdm import tqdm

from tokret.comparison.table import figures, markdown
from tokret.comparison.trials import Trial
from tokret.errors import UserError, exit_status
from tokret.models import HEADS
from tokret.whole_files import write_whole

# eval.py tells the numbers before re-ranking too.
MEASUREMENTS = {
    "three": ("--scales=1,1.41421356,0.70710678",),
    "expansion": ("--rerank=aqe:n=3",),
    "reciprocal": ("--rerank=k_reciprocal",),
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; python -m tokret.comparison --help says more")


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(word) for word in text.split(","))


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise ValueError
    return count


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
    parser.add_argument(
        "--config",
        default="configs/grocery_heads.py",
        help="takes a head after a colon",
    )
    parser.add_argument("--root", help="folder of classes to train on")
    parser.add_argument("--unseen", help="folder of classes to measure on")
    parser.add_argument("--output", type=Path, required=True, help="for all runs")
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument(
        "--heads", default="token,gem,rmac,solar,netvlad", help="which, with commas"
    )
    parser.add_argument(
        "--rates",
        type=_numbers,
        default=(0.0005, 0.005, 0.02),
        help="learning rates of head and classifier (0.0005,0.005,0.02)",
    )
    parser.add_argument(
        "--trunk_rates",
        type=_numbers,
        default=(0.005,),
        help="learning rates of the trunk (0.005)",
    )
    parser.add_argument(
        "--search_epochs", type=_count, default=4, help="of each choice of rates (4)"
    )
    parser.add_argument(
        "--held_out", type=float, default=0.25, help="share of classes to choose by"
    )
    parser.add_argument("--seeds", type=_count, default=3, help="trainings a head (3)")
    parser.add_argument(
        "--fields",
        nargs="*",
        type=_field,
        default=[],
        help="further NAME=VALUE of the config",
    )
    return parser


def _trial(flags: argparse.Namespace, head: str, name: str, **fields: object) -> Trial:
    places = {"data.root": flags.root, "data.benchmark_root": flags.unseen}
    named = {field: Path(place).resolve() for field, place in places.items() if place}
    given = named | dict(flags.fields) | fields
    return Trial(f"{flags.config}:{head}", given, flags.output.resolve() / head / name)


def _rate_fields(rate: float, trunk: float) -> dict[str, object]:
    return {"schedule.base": rate, "optimiser.trunk_rate": trunk / rate}


def choose_rates(flags: argparse.Namespace, head: str, bar: tqdm) -> dict[str, Any]:
    """Tries every pair of rates on held-out classes.

    Returns:
      "tried", rows of rate, trunk_rate and mAP or what was refused, and "best".
    """
    tried: list[dict[str, Any]] = []
    for rate, trunk in itertools.product(flags.rates, flags.trunk_rates):
        fields = _rate_fields(rate, trunk) | {
            "epochs": flags.search_epochs,
            "data.benchmark_fraction": flags.held_out,
            "data.benchmark_root": "",
        }
        trial = _trial(flags, head, f"rate-{rate}-{trunk}", **fields)
        row: dict[str, Any] = {"rate": rate, "trunk_rate": trunk}
        try:
            trial.train()
            row["mAP"] = trial.measure("held-out")["all"]["mAP"]
        except UserError as error:  # such rates end in no numbers
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
        fields = _rate_fields(best["rate"], best["trunk_rate"]) | {"seed": seed}
        trial = _trial(flags, head, f"seed-{seed}", **fields)
        found: dict[str, Any] = {"seed": seed, "seconds": trial.train()}
        for name, arguments in MEASUREMENTS.items():
            found[name] = trial.measure(name, arguments)
        bar.update()
        seeds.append(found)
    return seeds


def main() -> None:
    """Reads the flags, runs what is missing, prints the table."""
    flags = _flags().parse_args()
    heads = flags.heads.split(",")
    unknown = sorted(set(heads) - set(HEADS))
    if unknown:
        raise UserError(f"--heads: {unknown[0]!r} is not one of {', '.join(HEADS)}")
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


if __name__ == "__main__":
    sys.exit(exit_status(main))
