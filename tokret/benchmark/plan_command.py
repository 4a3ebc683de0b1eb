"""The flags of `python -m tokret.benchmark plan`."""

import argparse
from pathlib import Path
from typing import Any

from tokret import command_line, config_files
from tokret.benchmark import plan, plan_report, pod_table
from tokret.benchmark.plan import Request
from tokret.errors import UserError


def run(flags: argparse.Namespace) -> dict[str, Any]:
    """Makes one plan, or those of a whole table."""
    command_line.quieten()
    if flags.table is not None:
        return pod_table.run(flags.table)
    for name in ("config", "topology"):
        if getattr(flags, name) is None:
            raise UserError(f"plan needs --{name}, or --table=FILE.md")
    shown = Path(flags.config).name.replace(".py", "") + "".join(
        " " + field.removeprefix("--config.") for field in flags.fields
    )
    return plan.run(
        config_files.load_config(flags.config, flags.fields),
        Request(
            what=flags.what,
            name=shown,
            topology=flags.topology,
            model=flags.model or 1,
            batch_size=flags.batch_size,
            photos=flags.photos,
            classes=flags.classes,
            database=flags.database,
            store=flags.store,
        ),
    )


def report(result: dict[str, Any]) -> str:
    """Says it in plain text."""
    return pod_table.report(result) if "rows" in result else plan_report.report(result)
