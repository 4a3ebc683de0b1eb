"""The command `tokret`: only the module of the chosen command is imported."""

import importlib
import sys
from collections.abc import Sequence
from typing import NoReturn

from tokret import __version__
from tokret.runtime import signals

COMMANDS = {
    "train": "Train a model, or resume its training: photos with labels -> weights.",
    "eval": "Evaluate a checkpoint, or descriptors from anywhere.",
    "data": "Prepare a dataset, or check it: prepare, check.",
    "convert": "List or convert weights of PyTorch: inspect, from-torch, to-torch.",
    "index": "Make or update an index of a folder of photos.",
    "query": "Search an index for the photos most similar to photos.",
    "duplicates": "List the photos of an index that are nearly the same.",
    "serve": "Search an index from a browser, or over HTTP.",
    "checkpoints": "The checkpoints of a run: list, show, prune.",
    "compare": "Compare heads, each trained with learning rates of its own.",
    "benchmark": "Measure the speed of this machine; plan for a TPU pod.",
    "info": "Print versions, devices, caches and optional packages.",
}


def main() -> None:
    """Runs the command that the command line names."""
    name, *arguments = sys.argv[1:] or [""]
    if name == "--version":
        print(f"tokret {__version__}")
        sys.exit(0)
    if name in COMMANDS:
        run(name, arguments, f"tokret {name}")
    from tokret import command_line

    command_line.start(COMMANDS, sys.argv[1:], "tokret")  # --help, or it is misspelt


def run(name: str, arguments: Sequence[str], prog: str) -> NoReturn:
    """Imports a command's module, runs it, and ends the process."""
    # Libraries are imported for seconds, and an exception in them could crash.
    with signals.noticed(lambda _: None, lambda it: signals.end_now(it, "interrupted")):
        from tokret import command_line

        module = importlib.import_module(f"tokret.commands.{name}")
    command = getattr(module, "COMMANDS", None) or module.main
    command_line.start(command, arguments, prog)


if __name__ == "__main__":
    main()
