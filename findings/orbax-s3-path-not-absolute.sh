#!/bin/bash
# orbax-checkpoint 0.12.8 with tensorstore 0.1.86 and s3fs 2026.9.0; moto 5.2.5 is the server.
# Expected: a checkpoint is saved to s3:// as it is to gs://. TensorStore has an S3 driver,
# etils.epath opens s3:// through s3fs, and Orbax lists both prefixes side by side where it
# chooses the driver.
# What happens: while Orbax normalises the path one of the two slashes is lost, and only that
# of gs:// is put back. With OCDBT, the default, both of its interfaces refuse their own path:
# "Checkpoint path should be absolute. Got s3:/...". With OCDBT switched off the metadata and
# a file that says that all is committed go to the bucket, but the arrays go to a folder named
# "s3:" in the working directory; then renaming the folder in the bucket fails.
# Why it matters: retrieval training on AWS, or on any store that speaks its protocol, cannot
# keep its checkpoints where its data are, and that shows only at the first save. In the
# second form all arrays of a run may sit on the disk of a rented machine. One has to save to
# a local disk and upload, or mount the bucket.
set -eu
D=$(mktemp -d); P=
trap '[ -z "$P" ] || kill "$P"; rm -rf "$D"' EXIT
"${PYTHON:-python3}" -m venv "$D/v"
"$D/v/bin/pip" install -q --disable-pip-version-check orbax-checkpoint==0.12.8 \
    tensorstore==0.1.86 jax==0.10.2 jaxlib==0.10.2 s3fs==2026.9.0 'moto[server]==5.2.5'
PORT=$("$D/v/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$D/v/bin/moto_server" -H 127.0.0.1 -p "$PORT" > "$D/log" 2>&1 & P=$!
export AWS_ENDPOINT_URL=http://127.0.0.1:$PORT AWS_ACCESS_KEY_ID=id AWS_SECRET_ACCESS_KEY=key
export AWS_DEFAULT_REGION=us-east-1 JAX_PLATFORMS=cpu
cd "$D"
"$D/v/bin/python" - <<'E2'
import logging
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import orbax.checkpoint as v0
import s3fs
from etils import epath
from orbax.checkpoint import v1

logging.disable(logging.ERROR)
print(*(f"{name} {version(name)}" for name in ("orbax-checkpoint", "tensorstore", "s3fs")))
files = s3fs.S3FileSystem()
for _ in range(60):
    try:
        files.mkdir("bucket")
        break
    except Exception:
        time.sleep(0.5)
path = epath.Path("s3://bucket/folder/file.txt")
path.write_text("text")
print("epath writes and reads s3://:", path.read_text() == "text")
tree = {"weights": np.arange(8.0, dtype=np.float32)}


def by_handler(path, **options):
    with v0.Checkpointer(v0.PyTreeCheckpointHandler(**options)) as saver:
        saver.save(path, args=v0.args.PyTreeSave(tree))


ways = {
    "v1 save_pytree": lambda path: v1.save_pytree(path, tree),
    "v0 PyTreeCheckpointHandler": by_handler,
}
for number, (name, save) in enumerate(ways.items()):
    try:
        save(epath.Path(f"s3://bucket/run/{number}"))
        raise SystemExit(f"{name}: saved, this has changed")
    except ValueError as error:
        print(f"{name}: {error}")
        assert "should be absolute. Got s3:/bucket" in str(error)
try:
    by_handler(epath.Path("s3://bucket/plain"), use_ocdbt=False)
    raise SystemExit("without OCDBT: saved, this has changed")
except OSError as error:
    print(f"without OCDBT: {error}")
files.invalidate_cache()
objects = [name for name in files.find("bucket") if name.startswith("bucket/plain")]
local = [str(path) for path in Path("s3:").rglob("*") if path.is_file()]
print("in the bucket:", *objects)
print("on the local disk:", *local)
assert not any("weights" in name for name in objects)
assert any(name.endswith("/commit_success.txt") for name in objects)
assert any(name.endswith("weights/0") for name in local)
E2
echo "as described"
