"""Fixtures: servers of object storage on this machine, as programs use them.

`gcs` is gcp-storage-emulator, `s3` is moto's server; both are behind a `Proxy`. The
emulator ignores preconditions: "create" does not notice an object that exists.
"""

import contextlib
import importlib.util
import random
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.storage.proxy import Proxy
from tokret.io.remote import cache_folder

BUCKET = "bucket"
RUN_SERVER = Path(__file__).with_name("run_server.py")
STARTS = 300.0  # seconds until a server answers at the latest


class Storage:
    """An empty bucket in object storage.

    Attributes:
      url: of the bucket, without a slash at its end.
      environment: what this process and programs that it starts need to use it.
      proxy: through which they do.
    """

    def __init__(
        self, scheme: str, environment: dict[str, str], proxy: Proxy | None = None
    ) -> None:
        self.url = f"{scheme}://{BUCKET}"
        self.environment = environment
        self._proxy = proxy

    @property
    def proxy(self) -> Proxy:
        assert self._proxy is not None, f"{self.url} has no server"
        return self._proxy


def free_port() -> int:
    """A port that is free, and that no outgoing connection is given meanwhile."""
    # Systems give those from 32,768 on, or from 49,152.
    for port in random.SystemRandom().sample(range(10_000, 32_000), 100):
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no port is free")


def start_server(module: str, *arguments: str) -> tuple[subprocess.Popen, int]:
    """Starts a module's server on a free port and waits until it answers."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, str(RUN_SERVER), module, *arguments, f"--port={port}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is of the tests
    )
    last = time.monotonic() + STARTS
    while process.poll() is None and time.monotonic() < last:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1.0).close()
            return process, port
        time.sleep(0.05)
    process.kill()
    process.wait()
    raise RuntimeError(f"{module} did not start on port {port}")


@contextlib.contextmanager
def served(package: str, module: str, *arguments: str) -> Iterator[Proxy]:
    """A server behind a proxy; a test is skipped where the package is missing."""
    if importlib.util.find_spec(module.partition(".")[0]) is None:
        pytest.skip(f"needs {package}: pip install '.[test]'")
    process, port = start_server(module, *arguments)
    proxy = Proxy(port)
    try:
        yield proxy
    finally:
        proxy.close()
        process.kill()
        process.wait()


def request(method: str, url: str) -> None:
    urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=300)


@pytest.fixture(scope="session")
def gcs_server() -> Iterator[Proxy]:
    """gcp-storage-emulator, for all tests of this process."""
    module = "gcp_storage_emulator.__main__"
    start = ("start", "--host=127.0.0.1", "--in-memory", "--quiet")
    bucket = f"--default-bucket={BUCKET}"
    with served("gcp-storage-emulator", module, *start, bucket) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def s3_server() -> Iterator[Proxy]:
    """moto's server, for all tests of this process."""
    with served("moto[server]", "moto.server", "--host=127.0.0.1") as proxy:
        yield proxy


@contextlib.contextmanager
def used(storage: Storage, monkeypatch, tmp_path: Path) -> Iterator[Storage]:
    """Sets the environment; file systems of other environments are forgotten."""
    import fsspec

    monkeypatch.setenv(cache_folder.CACHE, str(tmp_path / "cache"))
    for name, value in storage.environment.items():
        monkeypatch.setenv(name, value)
    protocol = storage.url.partition(":")[0]
    fsspec.get_filesystem_class(protocol).clear_instance_cache()
    try:
        yield storage
    finally:
        fsspec.get_filesystem_class(protocol).clear_instance_cache()
        if storage._proxy is not None:
            storage.proxy.reset()


@pytest.fixture
def gcs(gcs_server: Proxy, monkeypatch, tmp_path: Path) -> Iterator[Storage]:
    """gs://bucket, empty."""
    request("GET", f"{gcs_server.url}/wipe?keep-buckets=true")
    environment = {
        "STORAGE_EMULATOR_HOST": gcs_server.url,
        "TENSORSTORE_GCS_HTTP_URL": gcs_server.url,
        "GOOGLE_AUTH_TOKEN_FOR_TESTING": "token",
        # As tokret sets it; here gcsfs may be imported before.
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
    }
    with used(Storage("gs", environment, gcs_server), monkeypatch, tmp_path) as storage:
        yield storage


@pytest.fixture
def s3(s3_server: Proxy, monkeypatch, tmp_path: Path) -> Iterator[Storage]:
    """s3://bucket, empty."""
    request("POST", f"{s3_server.url}/moto-api/reset")
    request("PUT", f"{s3_server.url}/{BUCKET}")
    environment = {
        "AWS_ENDPOINT_URL": s3_server.url,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with used(Storage("s3", environment, s3_server), monkeypatch, tmp_path) as storage:
        yield storage


@pytest.fixture
def memory(monkeypatch, tmp_path: Path) -> Iterator[Storage]:
    """memory://bucket, of this process alone, empty."""
    import fsspec

    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    with used(Storage("memory", {}), monkeypatch, tmp_path) as storage:
        yield storage


@pytest.fixture(params=["memory", "gcs", "s3"])
def storage(request: pytest.FixtureRequest) -> Storage:
    """Each kind of object storage in turn."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def other_host(monkeypatch, tmp_path: Path) -> Callable[[], None]:
    """Goes to a host without local copies."""
    hosts: list[None] = []

    def move() -> None:
        hosts.append(None)
        monkeypatch.setenv(cache_folder.CACHE, str(tmp_path / f"host {len(hosts)}"))

    return move
