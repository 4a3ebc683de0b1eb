"""Prints what a terminal shows of a run in object storage that is killed and resumed.

    python tests/storage/transcript.py PHOTOS

PHOTOS is a folder of photos for an index. The storage is the emulator of gs://.
"""

import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.storage.servers import BUCKET, served  # noqa: E402 (after the path)
from tokret.io.remote import cache_folder, objects  # noqa: E402 (after the path)

URL = f"gs://{BUCKET}"
TRAIN = (
    "tokret train --config=configs/demo.py --config.data.landmarks=16 "
    "--config.epochs=6 --config.run.checkpoint_every=8 --config.run.log_every=8 "
    f"--config.run.data_dir=data --workdir={URL}/run"
)


def run(command: str, kill_when: Callable[[], bool] | None = None) -> None:
    """Runs a command line, and kills it at a condition."""
    print(f"\n$ {command}", flush=True)
    words = [sys.executable, "-m", *shlex.split(command)]
    process = subprocess.Popen(words, stderr=subprocess.STDOUT)
    while kill_when and process.poll() is None:
        if kill_when():
            process.kill()
        time.sleep(0.2)
    status = process.wait()
    if status:
        print("Killed" if status == -9 else f"exit status {status}", flush=True)


def exists(name: str) -> Callable[[], bool]:
    return lambda: objects.find_object(f"{URL}/{name}") is not None


def main(photos: Path) -> None:
    emulator = ("start", "--host=127.0.0.1", "--in-memory", "--quiet")
    module, bucket = "gcp_storage_emulator.__main__", f"--default-bucket={BUCKET}"
    query = sorted(path for path in photos.rglob("*.jpg"))[0]
    with (
        served("gcp-storage-emulator", module, *emulator, bucket) as proxy,
        tempfile.TemporaryDirectory() as folder,
    ):
        os.environ["STORAGE_EMULATOR_HOST"] = proxy.url
        os.environ[cache_folder.CACHE] = f"{folder}/copies"
        print(f"$ export STORAGE_EMULATOR_HOST={proxy.url}")
        train = TRAIN.replace("data_dir=data", f"data_dir={folder}/data")
        run(train, kill_when=exists("run/checkpoints/16/SHA256SUMS"))
        run(train)
        run(f"tokret checkpoints list {URL}/run")
        run(f"tokret eval --workdir={URL}/run --baselines --no-report")
        run(f"tokret index {photos} --index={URL}/index --checkpoint={URL}/run")
        run(f"tokret query {query} --index={URL}/index --top=5")
        print(f"\n{URL} has")
        for name, entry in objects.list_objects(URL).items():
            print(f"{entry.size:10,}  {name}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
