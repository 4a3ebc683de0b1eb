"""TensorBoard files, written in the calling thread.

tensorboardX's own writer passes everything to a thread behind a short queue: if that
thread dies, for example of a full disk, the run would block on the queue for ever.
"""

import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from tokret.io.remote.uploading import Uploads
from tokret.io.remote.urls import url_of

# tensorboardX would import torch, which takes seconds, for nothing that is used here.
_hides_torch = "torch" not in sys.modules
if _hides_torch:
    sys.modules["torch"] = None  # type: ignore[assignment]
try:
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.summary import scalar
finally:
    if _hides_torch:
        del sys.modules["torch"]


PART = 2**20  # bytes of a file in object storage, where each is uploaded whole


class Events:
    """A file of events in a folder; in object storage one after the other."""

    def __init__(self, folder: Path, uploads: Uploads, *, first_step: int):
        """Opens a new file in a folder, which is created if it is missing.

        TensorBoard hides events of `first_step` and later ones in older files, which
        are from before the run was killed.

        Raises:
          OSError: if it cannot be written; so do all methods.
        """
        self._folder, self._uploads = folder, uploads
        self._is_remote = url_of(folder) is not None
        if self._is_remote:
            shutil.rmtree(folder, ignore_errors=True)  # local copies of older starts
        folder.mkdir(exist_ok=True)
        self._writer = EventsWriter(str(folder / "events"))
        start = SessionLog(status=SessionLog.START)
        self._write(Event(step=first_step, session_log=start))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes values of a step, by name, to the disk."""
        for name, value in values.items():
            self._write(Event(step=step, summary=scalar(name, value)))
        self._writer.flush()
        if self._is_remote:
            newest = max(self._folder.iterdir())  # their names begin with the time
            self._uploads.changed(newest)
            if newest.stat().st_size >= PART:
                self._writer.close()
                self._writer = EventsWriter(str(self._folder / "events"))

    def close(self) -> None:
        """Closes the file."""
        self._writer.close()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self._writer.write_event(event)
