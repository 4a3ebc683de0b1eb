"""Checks a dataset's downloaded files, or what was prepared from them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tokret.config.parsing import parse_data
from tokret.data.checking import downloads, prepared
from tokret.data.checking.photo_checks import Defect, PhotoToCheck, check_photos
from tokret.data.checking.report import CheckReport, Digests, format_table
from tokret.data.preparing.csv_files import write_rows
from tokret.data.preparing.workers import count_cores
from tokret.errors import UserError

# By dataset, what lists its downloaded photos; others are checked when prepared only.
DOWNLOADS: dict[str, Callable[..., Iterator[PhotoToCheck]]] = {
    "gldv2": downloads.gldv2,
    "image_folder": downloads.image_folder,
    "revisitop1m": downloads.revisitop1m,
    **{
        name: downloads.oxford_or_paris
        for name in ("oxford5k", "paris6k", "roxford5k", "rparis6k")
    },
}
ROOTS = ("manual_dir", "root", "table")  # fields that name the downloaded files
FIELDS = (*ROOTS, "subset", "exclude_ids", "release")  # that decide what is checked


def check(
    name: str,
    data_dir: Path,
    output: Path,
    *,
    smallest: int,
    workers: int,
    fields: dict[str, Any],
) -> tuple[str, bool]:
    """Checks a dataset; writes nothing but the CSV.

    Args:
      name: of the dataset.
      data_dir: the folder of prepared datasets; checked if no field names downloads.
      output: the CSV of all defects.
      smallest: the shorter side in pixels below which a photo is tiny.
      workers: processes; 0 for one per core.
      fields: of the dataset's config, in `FIELDS`.

    Returns:
      A table as text, and whether there are no defects.

    Raises:
      UserError: if there is nothing to check, or the CSV cannot be written.
    """
    if output.is_dir() or not output.parent.is_dir():
        raise UserError(f"output: {output} must be a file in an existing folder")
    report = CheckReport()
    if any(fields.get(field) for field in ROOTS):
        photos = DOWNLOADS[name](parse_data({"name": name, **fields}), report)
    else:
        photos = prepared.list_photos(data_dir, name, report)
    digests, checked = Digests(), 0
    workers = workers or count_cores()
    with tqdm(desc=name, unit="photo", disable=None) as bar:
        for photo in check_photos(photos, smallest, workers, bar.update):
            checked += 1
            is_empty = photo.defect is not None and photo.defect.problem == "empty"
            if photo.defect:
                report.defects.append(photo.defect)
            # Empty files are all the same.
            if photo.digest and not is_empty:
                digests.add(photo.name, photo.digest)
    defects = [*report.defects, *digests.duplicates()]
    defects.sort(key=lambda defect: (defect.problem, defect.name))
    write_rows(output, Defect._fields, defects)
    table = format_table(report.counts, defects, checked)
    return f"{table}\n\nwritten: {output}", not defects
