"""Listings, copies, leases and uploads: in memory, gs:// and s3://."""

import json
import os
import subprocess
import sys
import threading
import time

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tokret.errors import UserError
from tokret.io.remote import (
    cache_folder,
    fetching,
    leases,
    objects,
    retrying,
    uploading,
    urls,
)
from tokret.io.remote.fetching import drop, fetch, require
from tokret.io.remote.uploading import Uploads, publish

URL = "memory://bucket/run"


@pytest.fixture
def run(storage):
    """The URL of a run in each kind of object storage."""
    return f"{storage.url}/run"


def test_a_url_has_a_place_and_the_place_has_a_url(tmp_path, monkeypatch):
    monkeypatch.setenv(cache_folder.CACHE, str(tmp_path / "cache"))
    place = urls.local_path("gs://bucket/a/b/")
    assert place == tmp_path / "cache/gs/bucket/a/b"
    assert urls.url_of(place) == "gs://bucket/a/b"
    assert urls.url_of(tmp_path) is None and urls.shown(tmp_path) == str(tmp_path)
    assert urls.with_urls(f"{place}/x: damaged") == "gs://bucket/a/b/x: damaged"


def test_gs_takes_no_other_protocol_than_http(gcs):
    program = (
        "from tokret.io.remote import objects;"
        f"print(objects.list_names({gcs.url!r}));"
        "import fsspec; print(fsspec.get_filesystem_class('gs').__module__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["[]", "gcsfs.core"]


HOLD = """
import sys
from tokret.io.remote.urls import local_path
print(local_path("memory://bucket/run"), flush=True)
sys.stdin.read()
"""


def test_programs_of_a_host_have_copies_of_their_own(memory, tmp_path):
    assert urls.local_path(URL) == tmp_path / "cache/memory/bucket/run"
    places = []
    for inherited in ({}, cache_folder.inherited(), {}):
        done = subprocess.run(
            [sys.executable, "-c", HOLD],
            env={**os.environ, **inherited},
            input="",
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        places.append(done.stdout.strip())
    own, other = f"{tmp_path}/cache/memory", f"{tmp_path}/cache/2/memory"
    assert places == [f"{other}/bucket/run", f"{own}/bucket/run", f"{other}/bucket/run"]
    assert urls.url_of(tmp_path / "cache/2/memory/bucket/run") is None


def test_ordinary_paths_need_no_folder_of_copies(tmp_path):
    assert urls.url_of(tmp_path / "cache/gs/bucket/run") is None
    assert urls.with_urls("error") == "error"
    assert not (tmp_path / "cache").exists()


def test_a_folder_of_copies_that_cannot_be_made_is_named(memory, tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(UserError, match="TOKRET_CACHE=FOLDER in the environment"):
        urls.local_path(URL)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://host/x", "ftp:// cannot be used"),
        ("gs://", "names no bucket"),
        ("memory://bucket/../x", "has a part"),
        ("memory://bucket//x", "has a part"),
        ("memory://bucket/a\\b", "has a part"),
        (f"memory://bucket/{'x' * 256}", "has a part"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused(url, words):
    assert words in urls.url_problem(url)
    with pytest.raises(UserError, match="workdir: "):
        urls.check_url(url, "workdir")


def test_a_scheme_without_its_library_names_what_to_install(monkeypatch):
    monkeypatch.setitem(urls.SCHEMES, "gs", ("gs", "no_such_module", "'tokret[gcs]'"))
    assert "pip install 'tokret[gcs]'" in urls.url_problem("gs://bucket/x")


def test_objects_are_written_listed_read_and_removed(run):
    objects.write_object(f"{run}/a/b.txt", b"12345")
    objects.write_object(f"{run}/c", b"")
    assert {n: e.size for n, e in objects.list_objects(run).items()} == {
        "a/b.txt": 5,
        "c": 0,
    }
    assert objects.list_names(run) == ["a/", "c"]
    assert objects.read_object(f"{run}/a/b.txt", 5) == b"12345"
    with pytest.raises(UserError, match="more than 4 bytes"):
        objects.read_object(f"{run}/a/b.txt", 4)
    objects.remove(f"{run}/c")
    objects.remove(f"{run}/c")
    assert objects.list_names(run) == ["a/"]
    with pytest.raises(FileNotFoundError):
        objects.read_object(f"{run}/c", 1)


@pytest.mark.parametrize("name", ["memory", "s3"])  # see tests/storage/servers.py
def test_a_new_object_replaces_none(request, name):
    url = f"{request.getfixturevalue(name).url}/x"
    objects.write_object(url, b"1", new=True)
    with pytest.raises(FileExistsError):
        objects.write_object(url, b"2", new=True)
    assert objects.read_object(url, 1) == b"1"


def test_an_object_that_no_file_can_be_is_refused(memory):
    files = fsspec.filesystem("memory")
    files.store["/bucket/run/../x"] = files.open("/bucket/run/x", "wb")
    with pytest.raises(UserError, match="no file can have this name"):
        objects.list_objects(URL)


def test_a_folder_is_fetched_once_and_follows_the_bucket(run, monkeypatch):
    fetched = []
    real = objects.download

    def download(url, path, report):
        fetched.append(url)
        real(url, path, report)

    monkeypatch.setattr("tokret.io.remote.fetching.download", download)
    for name in ("a", "b/c", "b/skipped"):
        objects.write_object(f"{run}/{name}", name.encode())
    place = urls.local_path(run)
    fetch(place, lambda name: "skipped" not in name)
    assert (place / "b/c").read_bytes() == b"b/c"
    assert not (place / "b/skipped").exists()
    assert sorted(fetched) == [f"{run}/a", f"{run}/b/c"]
    fetch(place)
    assert len(fetched) == 3  # that which was skipped
    objects.write_object(f"{run}/a", b"A")
    objects.remove(f"{run}/b/skipped")
    (place / "b/c").write_bytes(b"B/C")  # damaged on the disk
    os.utime(place / "b/c", ns=(1, 1))
    (place / "other").write_bytes(b"")
    fetch(place)
    assert (place / "a").read_bytes() == b"A"
    assert (place / "b/c").read_bytes() == b"b/c"
    assert sorted(p.name for p in place.rglob("*")) == ["a", "b", "c"]
    record = fetching._record_of(place)
    record.write_text("[" * 5000)  # damaged: fetched again
    fetch(place)
    assert len(fetched) == 7
    drop(place)
    assert not place.exists()


NAMES = [
    *("with space", " lead", "trail ", "per%cent", "per%20cent", "q?x", "h#x", "a[b]"),
    *("st*r", "pl+us", "é", "日本", "a&b", "a=b", "quo'te", 'quo"te', "co:lon", "a@b"),
    *("{b}", "$d", "x|y", "<t>", "a,b", "x..", "-dash", "h#123", "n" * 200),
]


@pytest.mark.parametrize(
    "content",
    [b"\r", b"a\r\n", b"\n", b"x\n--==0==--", b"\r\n--==0==\r\n", bytes(range(256))],
)
def test_any_bytes_are_written_as_they_are(run, tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    objects.upload(tmp_path / "x", f"{run}/x")
    objects.write_object(f"{run}/y", content)
    for name in ("x", "y"):
        assert objects.read_object(f"{run}/{name}", 300) == content


def test_any_name_of_a_file_is_one_of_an_object(run):
    place = urls.local_path(run)
    for name in NAMES:
        (place / name).mkdir(parents=True)
        (place / name / name).write_text(name)
    publish(place)
    assert {*objects.list_objects(run)} == {f"{name}/{name}" for name in NAMES}
    assert objects.list_names(run) == sorted(f"{name}/" for name in NAMES)
    drop(place)
    fetch(place)
    for name in NAMES:
        assert (place / name / name).read_text() == name
        assert objects.read_object(f"{run}/{name}/{name}", 800).decode() == name
        objects.remove(f"{run}/{name}/{name}")
    assert objects.list_objects(run) == {}


def test_an_object_and_a_folder_of_one_name_are_refused(run):
    for name in ("a/b", "a", "c"):
        objects.write_object(f"{run}/{name}", b"")
    with pytest.raises(UserError, match=f"{run}/a is an object and a folder"):
        fetch(urls.local_path(run))


def test_an_object_takes_the_place_of_a_folder(run):
    place = urls.local_path(run)
    objects.write_object(f"{run}/a/b/c", b"1")
    fetch(place)
    objects.remove(f"{run}/a/b/c")
    objects.write_object(f"{run}/a", b"2")
    fetch(place)
    assert (place / "a").read_bytes() == b"2"
    objects.remove(f"{run}/a")
    objects.write_object(f"{run}/a/b", b"3")
    fetch(place)
    assert (place / "a/b").read_bytes() == b"3"


def test_an_interrupt_does_not_wait_for_large_objects(memory, monkeypatch):
    started, ended = threading.Event(), []

    def download(url, path, report):
        if url.endswith("/a"):
            assert started.wait(600.0)
            raise KeyboardInterrupt
        started.set()
        with pytest.raises(UserError):
            while True:
                report(1)
        ended.append(url)

    for name in "ab":
        objects.write_object(f"{URL}/{name}", b"x")
    monkeypatch.setattr(fetching, "download", download)
    with pytest.raises(KeyboardInterrupt):
        fetch(urls.local_path(URL))
    assert ended == [f"{URL}/b"]


def test_one_object_is_fetched(run, tmp_path):
    objects.write_object(f"{run}/w.pth", b"weights")
    place = require(urls.local_path(f"{run}/w.pth"))
    assert place.read_bytes() == b"weights"
    assert objects.find_object(run) is None  # a folder
    with pytest.raises(UserError, match=f"{run}/none: there is no such"):
        require(urls.local_path(f"{run}/none"))
    assert fetch(tmp_path / "local") == tmp_path / "local"


def test_failures_that_pass_are_repeated(monkeypatch, capsys):
    monkeypatch.setattr(retrying, "FIRST_WAIT", 0.001)
    left = [OSError("503 slow down"), TimeoutError(), None]

    def call():
        if error := left.pop(0):
            raise error
        return 7

    assert retrying.retried(URL, call) == 7
    warning = f"warning: {URL}: 503 slow down; trying again for 900 s\n"
    assert capsys.readouterr().err == warning


def test_failures_that_last_end_with_status_75(monkeypatch):
    monkeypatch.setattr(retrying, "FIRST_WAIT", 0.001)
    monkeypatch.setenv(retrying.PATIENCE, "0.05")

    def call():
        raise OSError("503")

    with pytest.raises(retrying.UnavailableError, match=r"failed for .*503") as found:
        retrying.retried(URL, call)
    assert found.value.status == 75


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError("denied"), "no permission"),
        (OSError("Forbidden: b"), "no permission"),
        (type("HttpError", (Exception,), {"code": 401})("anonymous"), "no permission"),
        (type("NoCredentialsError", (Exception,), {})("none"), "no credentials"),
        (ValueError("Bad Request"), "refused: Bad Request"),
    ],
)
def test_failures_that_do_not_pass_are_reported_at_once(error, words):
    def call():
        raise error

    with pytest.raises(retrying.StorageError, match=f"{URL}: {words}"):
        retrying.retried(URL, call)


def test_a_file_that_grows_while_it_is_uploaded_is_no_error(
    memory, tmp_path, monkeypatch
):
    monkeypatch.setattr(objects, "SMALL", 0)
    file = tmp_path / "metrics"
    file.write_bytes(b"1")
    real = MemoryFileSystem.put_file

    def put(self, *arguments):
        real(self, *arguments)
        file.write_bytes(b"12")

    monkeypatch.setattr(MemoryFileSystem, "put_file", put)
    objects.upload(file, f"{URL}/metrics")
    monkeypatch.setattr(MemoryFileSystem, "put_file", lambda *_: None)
    with pytest.raises(UserError, match="has 1 bytes, not the 2 that were sent"):
        objects.upload(file, f"{URL}/metrics")


def test_uploads_follow_the_files(run, monkeypatch):
    place = urls.local_path(run)
    place.mkdir(parents=True)
    with Uploads() as uploads:
        for text in ("1", "12", "123"):
            (place / "metrics").write_text(text)
            uploads.changed(place / "metrics")
        uploads.changed(place / "gone")  # removed meanwhile
    assert objects.read_object(f"{run}/metrics", 10) == b"123"
    publish(place)
    assert list(objects.list_objects(run)) == ["metrics"]


def test_a_flush_uploads_what_is_not_due_yet(run):
    place = urls.local_path(run)
    place.mkdir(parents=True)
    with Uploads(period=3600.0) as uploads:
        for text in ("1", "12"):
            (place / "metrics").write_text(text)
            uploads.changed(place / "metrics")
            uploads.flush()
            assert objects.read_object(f"{run}/metrics", 10).decode() == text


def test_a_file_may_grow_while_it_is_uploaded(run, monkeypatch):
    place = urls.local_path(run)
    place.mkdir(parents=True)
    with Uploads(period=0.0) as uploads:
        for _ in range(200):
            with (place / "metrics").open("a") as file:
                file.write("x" * 50_000)
            uploads.changed(place / "metrics")
    assert objects.list_objects(run)["metrics"].size == 10_000_000


def test_an_upload_that_fails_is_reported(run, monkeypatch):
    def write_object(url, content):
        raise retrying.StorageError("no permission")

    monkeypatch.setattr(uploading, "write_object", write_object)
    place = urls.local_path(run)
    place.mkdir(parents=True)
    (place / "x").write_text("")
    with pytest.raises(UserError, match="no permission"), Uploads() as uploads:
        uploads.changed(place / "x")


@pytest.fixture
def fast(monkeypatch):
    monkeypatch.setattr(leases, "RENEWED", 0.05)
    monkeypatch.setattr(leases, "EXPIRES", 1.0)
    monkeypatch.setattr(leases, "SETTLES", 0.1)


def written(run, **facts):
    known = {"owner": "x", "host": "other", "scope": "s", "pid": 1, "since": "then"}
    objects.write_object(f"{run}/lease", json.dumps(known | facts).encode())


def test_a_lease_keeps_others_out_and_ends(run, fast, monkeypatch):
    monkeypatch.setattr(leases, "EXPIRES", 600.0)  # it is renewed long before
    with leases.leased(f"{run}/lease", "a run is there") as is_held:
        with pytest.raises(UserError, match=r"a run is there \(it is process \d+ on"):
            with leases.leased(f"{run}/lease", "a run is there"):
                pass
        assert is_held()
    assert objects.list_names(run) == []


def test_a_lease_that_expired_is_taken_over(run, fast):
    written(run)
    lines = []
    with leases.leased(f"{run}/lease", "", lines.append) as is_held:
        assert is_held()
    assert lines == ["waiting up to 1 s: process 1 on other may still be at work"]


def test_a_lease_of_a_process_that_ended_here_is_taken_at_once(run, fast, monkeypatch):
    monkeypatch.setattr(leases, "EXPIRES", 60.0)
    monkeypatch.setattr(leases.drafts, "is_running", lambda pid: False)
    written(run, scope=leases.drafts.own_scope(), pid=12345)
    with leases.leased(f"{run}/lease", "") as is_held:
        assert is_held()


@pytest.mark.parametrize("pid", [10**30, 0, "1"])
def test_a_lease_of_no_process_expires(memory, fast, pid):
    written(URL, scope=leases.drafts.own_scope(), pid=pid, since="\033[2J" * 99)
    with leases.leased(f"{URL}/lease", "") as is_held:
        assert is_held()


def test_a_lease_that_another_took_is_noticed(run, fast):
    with leases.leased(f"{run}/lease", "") as is_held:
        last = time.monotonic() + 300
        while is_held():
            written(run)  # again, should it have been renewed at this moment
            assert time.monotonic() < last
            time.sleep(0.02)
    assert objects.list_names(run) == ["lease"]  # the other's


@pytest.mark.parametrize("content", [b"", b"[]", b'{"pid": "x", "owner": 1}'])
def test_a_damaged_lease_expires(memory, fast, content):
    objects.write_object(f"{URL}/lease", content)
    with leases.leased(f"{URL}/lease", "") as is_held:
        assert is_held()


def test_a_lease_whose_answer_was_lost_is_held(memory, fast, monkeypatch):
    monkeypatch.setattr(leases, "EXPIRES", 60.0)
    real = leases.write_object

    def write(url, content, *, new=False):
        real(url, content, new=new)
        if new:  # the request was repeated
            raise FileExistsError

    monkeypatch.setattr(leases, "write_object", write)
    with leases.leased(f"{URL}/lease", "") as is_held:
        assert is_held()
