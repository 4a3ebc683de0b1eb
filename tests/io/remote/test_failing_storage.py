"""Servers of gs:// and s3:// that refuse, fail, cut connections or do not answer."""

import asyncio
import os
import time

import pytest

from tests.storage.proxy import Fault, seeded
from tokret.io.remote import file_systems, objects, retrying, urls
from tokret.io.remote.fetching import fetch
from tokret.io.remote.uploading import publish

MB = 2**20
NEVER = 600.0  # seconds
SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Slow down</Message></Error>"
FAULTS = (
    Fault("cut"),
    Fault("cut answer"),
    Fault("answer", 503, SLOW_DOWN),
    Fault("answer", 429),
    Fault("lost", 503, SLOW_DOWN),
    Fault("delay", seconds=0.3),
)


@pytest.fixture(params=["gcs", "s3"])
def server(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def quick(monkeypatch):
    """Waits of this project, and of gcsfs: half a minute for a call."""
    monkeypatch.setattr(retrying, "FIRST_WAIT", 0.05)
    sleep = asyncio.sleep
    monkeypatch.setattr(asyncio, "sleep", lambda seconds: sleep(min(seconds, 0.05)))


def google(code, message):
    return Fault(
        "answer", code, b'{"error": {"code": %d, "message": "%s"}}' % (code, message)
    )


def amazon(status, code, message):
    words = b"<Error><Code>%s</Code><Message>%s</Message></Error>" % (code, message)
    return Fault("answer", status, words)


REFUSALS = [
    ("gcs", google(401, b"Anonymous caller does not have access"), "no permission"),
    ("gcs", google(403, b"x@y does not have access"), "no permission"),
    ("gcs", google(404, b"The specified bucket does not exist."), "no such bucket"),
    ("s3", amazon(403, b"InvalidAccessKeyId", b"It does not exist"), "no permission"),
    ("s3", amazon(403, b"AccessDenied", b"Access Denied"), "no permission"),
    ("s3", amazon(400, b"ExpiredToken", b"It has expired"), "no permission"),
    ("s3", amazon(404, b"NoSuchBucket", b"It does not exist"), "no such bucket"),
]


@pytest.mark.parametrize(("name", "refusal", "words"), REFUSALS)
def test_refusals_are_reported_at_once(request, tmp_path, capsys, name, refusal, words):
    storage = request.getfixturevalue(name)
    storage.proxy.plan = lambda request: refusal
    url = f"{storage.url}/run/x"
    (tmp_path / "x").write_bytes(b"x")
    for call in (
        lambda: objects.list_objects(url),
        lambda: objects.write_object(url, b""),
        lambda: objects.upload(tmp_path / "x", url),
        lambda: fetch(urls.local_path(url)),
    ):
        with pytest.raises(retrying.StorageError, match=f"{url}: .*{words}") as error:
            call()
        assert "\n" not in str(error.value)
    # Neither this project nor gcsfs repeats them.
    assert not capsys.readouterr().err and len(storage.proxy.requests) < 20


def test_a_server_without_an_answer_is_called_again(server, quick, monkeypatch):
    monkeypatch.setattr(file_systems, "READ_TIMEOUT", 0.5)
    objects.write_object(f"{server.url}/a", b"1")
    silent, start = [Fault("silent", seconds=NEVER)], time.monotonic()
    server.proxy.plan = lambda request: silent.pop() if silent else None
    assert objects.read_object(f"{server.url}/a", 1) == b"1"
    assert not silent and time.monotonic() - start < NEVER


def test_an_upload_that_is_not_read_is_sent_again(server, quick, monkeypatch, tmp_path):
    monkeypatch.setattr(file_systems, "UPLOAD_TIMEOUT", 1.0)
    monkeypatch.setattr(file_systems, "SLOWEST", 100 * MB)
    content = os.urandom(20 * MB)
    (tmp_path / "x").write_bytes(content)
    stopped, start = [Fault("unread", seconds=NEVER)], time.monotonic()

    def plan(request):
        if stopped and request.size > MB:
            monkeypatch.setattr(file_systems, "UPLOAD_TIMEOUT", NEVER)  # the next
            return stopped.pop()
        return None

    server.proxy.plan = plan
    objects.upload(tmp_path / "x", f"{server.url}/x")
    assert not stopped and time.monotonic() - start < NEVER
    server.proxy.plan = lambda request: None
    assert objects.read_object(f"{server.url}/x", 20 * MB) == content


@pytest.mark.slow
def test_a_server_that_fails_too_long_ends_with_status_75(
    server, quick, monkeypatch, capfd
):
    monkeypatch.setenv(retrying.PATIENCE, "5")
    server.proxy.plan = lambda request: Fault("answer", 503, SLOW_DOWN)
    with pytest.raises(retrying.UnavailableError) as error:
        objects.write_object(f"{server.url}/a", b"1")
    assert error.value.status == 75 and "resumes once it works" in str(error.value)
    written = capfd.readouterr().err.splitlines()
    assert all(line.startswith("warning: ") for line in written)


@pytest.mark.slow
def test_a_server_that_is_down_for_a_while_is_waited_for(server, quick, tmp_path):
    until = time.monotonic() + 5
    server.proxy.plan = lambda request: (
        Fault("cut") if time.monotonic() < until else None
    )
    objects.write_object(f"{server.url}/a", b"1")
    assert objects.read_object(f"{server.url}/a", 1) == b"1"


@pytest.mark.parametrize("size", [1, 9 * MB])
def test_a_write_whose_answer_was_lost_is_repeated(server, quick, tmp_path, size):
    content = os.urandom(size)
    (tmp_path / "x").write_bytes(content)
    lost = [Fault("lost", 503, SLOW_DOWN)]
    server.proxy.plan = lambda request: (
        lost.pop() if lost and request.size >= size else None
    )
    objects.upload(tmp_path / "x", f"{server.url}/x")
    assert not lost
    assert objects.read_object(f"{server.url}/x", size) == content
    assert [*objects.list_objects(server.url)] == ["x"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_nothing_is_lost_and_nothing_is_written_twice(server, quick, tmp_path, seed):
    sizes = {"a": 0, "b/c": 1, "b/d e": 100, "f": MB, "g": 6 * MB}
    contents = {name: os.urandom(size) for name, size in sizes.items()}
    url = f"{server.url}/run"
    server.proxy.plan = seeded(seed, 0.25, FAULTS)
    place = urls.local_path(url)
    for name, content in contents.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    publish(place)
    objects.write_object(f"{url}/old", b"")
    objects.remove(f"{url}/old")
    fetch(place)
    found = {
        p.relative_to(place).as_posix(): p for p in place.rglob("*") if p.is_file()
    }
    assert {name: path.read_bytes() for name, path in found.items()} == contents
    server.proxy.plan = lambda request: None
    listed = objects.list_objects(server.url)
    assert {name: entry.size for name, entry in listed.items()} == {
        f"run/{name}": size for name, size in sizes.items()
    }


def test_an_object_that_is_replaced_is_read_whole(server, quick, tmp_path):
    """The reader has all of the old one or all of the new one, whatever is cut."""
    old, new = b"o" * 9 * MB, b"n" * 9 * MB
    (tmp_path / "new").write_bytes(new)
    objects.write_object(f"{server.url}/x", old)
    seen, cuts = set(), [Fault("cut"), Fault("cut")]

    def plan(request):
        if request.method in ("PUT", "POST") and request.size > MB and cuts:
            seen.add(objects.read_object(f"{server.url}/x", 10 * MB))
            return cuts.pop()
        return None

    server.proxy.plan = plan
    objects.upload(tmp_path / "new", f"{server.url}/x")
    assert not cuts and seen == {old}
    assert objects.read_object(f"{server.url}/x", 10 * MB) == new
