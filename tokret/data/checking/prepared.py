"""Datasets that were prepared: are their records what was written?"""

from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds

from tokret.data.checking.examination import Subject
from tokret.data.checking.sources import Notes
from tokret.data.records import BadRecordError, read_record
from tokret.errors import UserError


def find(data_dir: Path, name: str) -> list[Path]:
    """Lists the prepared datasets of a name, whatever their options.

    Raises:
      UserError: if there is none.
    """
    found = [path.parent for path in data_dir.glob(f"{name}/**/dataset_info.json")]
    whole = [path for path in sorted(found) if not path.name.endswith(".partial")]
    if not whole:
        raise UserError(
            f"{data_dir} holds no prepared {name}; name what is to be checked, as for "
            "prepare, or another --data_dir"
        )
    return whole


def records(data_dir: Path, name: str, notes: Notes) -> Iterator[Subject]:
    """Yields the photos of all prepared datasets of a name, as they were stored."""
    for folder in find(data_dir, name):
        builder = tfds.builder_from_directory(folder)
        for split, info in builder.info.splits.items():
            label = f"{folder.relative_to(data_dir / name).as_posix()}, {split}"
            there = [path for path in info.filepaths if Path(path).is_file()]
            notes.count(f"files of {label}", len(there), len(info.filepaths))
            if len(there) < len(info.filepaths):
                for path in sorted(set(info.filepaths) - set(there)):
                    notes.note(Path(path).name, "missing", f"in {folder}")
                continue
            source = builder.as_data_source(
                split, decoders={"image": tfds.decode.SkipDecoding()}
            )
            notes.count(f"photos of {label}", len(source))
            for place in range(len(source)):
                try:
                    record = read_record(source, place)
                except BadRecordError as error:
                    notes.note(f"{label}/{place}", "unreadable", str(error))
                else:
                    photo = f"{label}/{record['filename'].decode()}"
                    yield Subject(photo, record["image"], str(folder))
