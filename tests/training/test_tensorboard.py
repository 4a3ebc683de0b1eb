import struct

from tensorboardX.proto.event_pb2 import Event, SessionLog

from tokret.io.remote.uploading import Uploads
from tokret.training.tensorboard import Events


def events_in(folder):
    """Reads records: length, its checksum, an event, its checksum."""
    (path,) = folder.iterdir()
    data, found = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        found.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return found


def test_what_tensorboard_reads(tmp_path):
    events = Events(tmp_path / "events", Uploads(), first_step=5)
    events.scalars(6, {"train/loss": 0.5, "train/top1": 1.0})
    # On the disk at once, whatever happens to the process.
    version, start, *written = events_in(tmp_path / "events")
    events.close()
    assert version.file_version == "brain.Event:2"
    assert start.step == 5 and start.session_log.status == SessionLog.START
    values = [(e.step, e.summary.value[0].tag) for e in written]
    assert values == [(6, "train/loss"), (6, "train/top1")]
    assert written[0].summary.value[0].simple_value == 0.5 and written[0].wall_time > 0
