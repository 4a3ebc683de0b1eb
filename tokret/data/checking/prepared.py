"""Prepared datasets: are their records as they were written?"""

from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds

from tokret.data.checking.photo_checks import PhotoToCheck
from tokret.data.checking.report import CheckReport
from tokret.data.records import BadRecordError, read_record
from tokret.errors import UserError


def find(data_dir: Path, name: str) -> list[Path]:
    """Lists the prepared datasets of a name, with any options.

    Raises:
      UserError: if there is none.
    """
    found = [path.parent for path in data_dir.glob(f"{name}/**/dataset_info.json")]
    complete = [path for path in sorted(found) if not path.name.endswith(".partial")]
    if not complete:
        raise UserError(
            f"data_dir: {data_dir} contains no prepared {name}; name the downloaded "
            "files to check, as for prepare, or another data_dir"
        )
    return complete


def list_photos(
    data_dir: Path, name: str, report: CheckReport
) -> Iterator[PhotoToCheck]:
    """Yields the photos of all prepared datasets of a name, as they were stored."""
    for folder in find(data_dir, name):
        builder = tfds.builder_from_directory(folder)
        for split, info in builder.info.splits.items():
            label = f"{folder.relative_to(data_dir / name).as_posix()}, {split}"
            missing = [path for path in info.filepaths if not Path(path).is_file()]
            total = len(info.filepaths)
            report.add_count(f"files of {label}", total - len(missing), total)
            if missing:
                for path in sorted(missing):
                    report.add_defect(Path(path).name, "missing", f"in {folder}")
                continue
            source = builder.as_data_source(
                split, decoders={"image": tfds.decode.SkipDecoding()}
            )
            report.add_count(f"photos of {label}", len(source))
            for row in range(len(source)):
                try:
                    record = read_record(source, row)
                except BadRecordError as error:
                    report.add_defect(f"{label}/{row}", "unreadable", str(error))
                else:
                    photo = f"{label}/{record['filename'].decode()}"
                    yield PhotoToCheck(photo, record["image"], str(folder))
