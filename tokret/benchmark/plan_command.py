"""The flags of `python -m tokret.benchmark plan`."""

import argparse
from pathlib import Path
from typing import Any

from tokret import command_line, config_files
from tokret.benchmark import plan
from tokret.benchmark.plan import PlanRequest
from tokret.errors import UserError


def run(flags: argparse.Namespace) -> dict[str, Any]:
    """Makes a plan."""
    command_line.quieten()
    for name in ("config", "topology"):
        if getattr(flags, name) is None:
            raise UserError(f"plan needs --{name}")
    name = Path(flags.config).name.replace(".py", "") + "".join(
        " " + field.removeprefix("--config.") for field in flags.fields
    )
    return plan.run(
        config_files.load_config(flags.config, flags.fields),
        PlanRequest(
            what=flags.what,
            name=name,
            topology=flags.topology,
            model=flags.model or 1,
            batch_size=flags.batch_size,
            photos=flags.photos,
            classes=flags.classes,
            database=flags.database,
            store=flags.store,
        ),
    )
