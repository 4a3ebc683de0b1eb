"""The command `tokret`: only the module of the chosen command is imported."""

import importlib
import sys
from typing import Any

from tokret import __version__, command_line
from tokret.runtime.ending import exit_status, leave

COMMANDS = {
    "train": "Train a model, or resume its training: photos with labels -> weights.",
    "eval": "Evaluate a checkpoint, or descriptors from anywhere.",
    "data": "Prepare a dataset, or check it: prepare, check.",
    "convert": "List or convert weights of PyTorch: inspect, from-torch, to-torch.",
    "index": "Make or update an index of a folder of photos.",
    "query": "Search an index for the photos most similar to a photo.",
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
    if name not in COMMANDS:  # or --help
        command_line.start(COMMANDS, sys.argv[1:], "tokret")
    modules: list[Any] = []
    # Libraries are imported for seconds, in which an interrupt is one line too.
    status = exit_status(
        lambda: modules.append(importlib.import_module(f"tokret.commands.{name}"))
    )
    if status:
        leave(status)
    command = getattr(modules[0], "COMMANDS", None) or modules[0].main
    command_line.start(command, arguments, f"tokret {name}")


if __name__ == "__main__":
    main()
