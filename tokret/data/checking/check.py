"""Examines a dataset's sources, or what was prepared from them, and reports."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tokret.data.checking import prepared, sources
from tokret.data.checking.examination import Finding, Subject, examine
from tokret.data.checking.report import Digests, table, write_csv
from tokret.data.checking.sources import Notes
from tokret.data.preparing.engine import count_cores
from tokret.errors import UserError

Source = Callable[..., Iterator[Subject]]

SOURCES: dict[str, Source] = {
    "gldv2": sources.gldv2,
    "image_folder": sources.folder,
    "revisitop1m": sources.revisitop1m,
    **{
        name: functools.partial(sources.benchmark, name)
        for name in ("oxford5k", "paris6k", "roxford5k", "rparis6k")
    },
}
ROOTS = ("manual_dir", "root", "table")  # fields that name where the sources are


def check(
    name: str,
    data_dir: Path,
    output: Path,
    *,
    smallest: int,
    workers: int,
    fields: dict[str, Any],
) -> tuple[str, bool]:
    """Examines a dataset; writes nothing but the CSV.

    Args:
      name: of the dataset.
      data_dir: where prepared datasets lie; looked at if no field names the sources.
      output: the CSV of everything that is wrong.
      smallest: the shorter side in pixels below which a photo is tiny.
      workers: processes; 0 stands for one a core.
      fields: the source's own.

    Returns:
      The report, and whether nothing is wrong.

    Raises:
      UserError: if there is nothing to examine, or the CSV cannot be written.
    """
    if output.is_dir() or not output.parent.is_dir():
        raise UserError(f"--output: {output} must be a file in a folder that is there")
    notes = Notes()
    given = {field: value for field, value in fields.items() if value}
    if any(field in given for field in ROOTS):
        subjects = SOURCES[name](notes, **given)
    else:
        subjects = prepared.records(data_dir, name, notes)
    digests = Digests()
    with tqdm(desc=name, unit="photo", disable=None) as bar:
        examined = 0
        for found in examine(subjects, smallest, workers or count_cores(), bar.update):
            examined += 1
            if found.finding:
                notes.findings.append(found.finding)
            # Of empty files, all are alike.
            if found.digest and not _is_empty(found.finding):
                digests.add(found.name, found.digest)
    findings = sorted([*notes.findings, *digests.duplicates()], key=_order)
    write_csv(output, findings)
    text = f"{table(notes.counts, findings, examined)}\n\nwritten: {output}"
    return text, not findings


def _is_empty(finding: Finding | None) -> bool:
    return finding is not None and finding.problem == "empty"


def _order(finding: Finding) -> tuple[str, str]:
    return finding.problem, finding.name
