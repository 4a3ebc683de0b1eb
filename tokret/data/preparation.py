"""Preparing a TFDS builder, in tokret's own words."""

import contextlib
import io
import sys
import threading

import tensorflow_datasets as tfds

_LOCK = threading.Lock()


def prepare(builder: tfds.core.DatasetBuilder, photos: int) -> None:
    """Writes a dataset to disk, unless it is there.

    TFDS writes beside and renames at the end: what is there is complete. Its own
    messages speak of downloads and its bars know no total, so they are kept quiet.

    Args:
      builder: the dataset.
      photos: how many there will be, for the line that says so.
    """
    if builder.data_path.exists():
        return
    line = f"preparing {builder.name}: {photos} photos into {builder.data_path}"
    print(line, file=sys.stderr, flush=True)  # noqa: T201
    with _LOCK, contextlib.redirect_stdout(io.StringIO()):
        tfds.display_progress_bar(enable=False)
        try:
            builder.download_and_prepare()
        finally:
            tfds.display_progress_bar(enable=True)
