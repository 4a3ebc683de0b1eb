"""Mutates files of every kind that tokret reads, and counts what reading them does.

    python -m tests.fuzz --mutations=20000 [--readers="config.json;.tar"] [--seed=0]

A mutation may be refused with a `UserError` or accepted; anything else is unexpected:
an exception, a warning, a crash, 3 seconds of processor time, or 1 GiB of memory. The
exit status is 1 if there was any. `--show=NUMBER` runs one mutation of one
reader here, with its traceback.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.fuzz.readers import READERS
from tests.fuzz.supervision import Outcome, fuzz
from tests.fuzz.worker import mutated


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        "tests.fuzz", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--mutations", type=int, default=1000, help="of each reader")
    parser.add_argument(
        "--readers", default="", help="their names, separated by semicolons"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", type=int, help="the number of a mutation")
    options = parser.parse_args()
    names = [n for n in options.readers.split(";") if n] or list(READERS)
    if options.show is not None:
        show(names[0], options.show, options.seed)
        return 0
    print(
        f"{'reader':22}{'tried':>8}{'UserError':>11}{'accepted':>10}{'unexpected':>12}"
    )
    found = fuzz(dict.fromkeys(names, options.mutations), options.seed, print_row)
    return int(any(outcome.unexpected for outcome in found.values()))


def print_row(name: str, outcome: Outcome) -> None:
    """Prints a line of the table, and a line for each kind of unexpected ending."""
    count = sum(map(len, outcome.unexpected.values()))
    numbers = f"{outcome.tried:8}{outcome.refused:11}{outcome.accepted:10}{count:12}"
    print(f"{name:22}{numbers}", flush=True)
    for words, mutations in outcome.unexpected.items():
        print(f"    {len(mutations)} x {words}; the first: {mutations[0]}", flush=True)


def show(name: str, number: int, seed: int) -> None:
    """Reads one mutation, and lets every error through."""
    with tempfile.TemporaryDirectory() as folder:
        path = READERS[name].prepare(Path(folder))
        content = mutated(name, path.read_bytes(), number, seed)
        print(content[:2000])
        path.write_bytes(content)
        print(READERS[name].read(path))


if __name__ == "__main__":
    sys.exit(main())
