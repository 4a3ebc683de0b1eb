#!/bin/bash
# qdrant-edge-py 0.9.0, a shard that two processes load.
# Expected: a shard belongs to one process. A second one that loads it is refused by the
# lock of the write-ahead log, and whatever is refused changes nothing.
# What happens: the second process is refused ("Can't init WAL: WouldBlock"), but only
# after it has loaded the segments, which removes the payload storage's journal,
# tracker_journal.dat. The first process's next flush raises "Failed to flush
# payload_index: ... Tracker journal ... is shorter than expected".
# Why it matters: an index of photos is updated by one program while another one, started
# by mistake or to look, only tries to open it; the update fails, though it was the only
# one that had the lock.
set -eu
D=$(mktemp -d); trap 'rm -rf "$D"' EXIT
"${PYTHON:-python3}" -m venv "$D/v"
"$D/v/bin/pip" install -q --disable-pip-version-check qdrant-edge-py==0.9.0
cd "$D"; "$D/v/bin/python" - <<'P'
import importlib.metadata as metadata
import pathlib
import subprocess
import sys
import qdrant_edge as edge
print("qdrant-edge-py", metadata.version("qdrant-edge-py"))
shard = edge.EdgeShard.create("shard", edge.EdgeConfig(
    vectors=edge.EdgeVectorParams(4, edge.Distance.Dot)))
def add(start):
    shard.update(edge.UpdateOperation.upsert_points(
        [edge.Point(start + i, [1.0, 0, 0, i], {"label": "sea"}) for i in range(10)]))
    shard.flush()
def journals():
    return len(list(pathlib.Path("shard").rglob("tracker_journal.dat")))
add(0)
add(10)
before = journals()
second = subprocess.run(
    [sys.executable, "-c", "import qdrant_edge; qdrant_edge.EdgeShard.load('shard')"],
    capture_output=True, text=True)
print("the second process:", second.stderr.strip().splitlines()[-1][:90])
assert second.returncode == 1 and "WouldBlock" in second.stderr
print("journals of the payload storage:", before, "before,", journals(), "after")
assert before > 0 and journals() == 0
try:
    add(20)
    raise SystemExit("the first process can flush")
except Exception as error:
    print("the first process:", str(error).replace("Service", "").strip()[:90])
    assert "shorter than expected" in str(error)
P
echo "as described"
