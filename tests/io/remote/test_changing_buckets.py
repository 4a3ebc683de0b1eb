"""Buckets that others change meanwhile, and local copies that are not as fetched."""

import json

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tokret.errors import UserError
from tokret.io.remote import leases, objects, retrying, urls
from tokret.io.remote.fetching import fetch

URL = "memory://bucket/run"


def listed_with(monkeypatch, **facts):
    """Lists each object with these facts, not those of the file system's own."""
    find = MemoryFileSystem.find

    def listed(self, path, detail):
        return {
            name: {"type": "file", "size": found["size"], **facts}
            for name, found in find(self, path, detail=detail).items()
        }

    monkeypatch.setattr(MemoryFileSystem, "find", listed)


def test_an_object_without_a_version_is_fetched_each_time(memory, monkeypatch):
    listed_with(monkeypatch)
    place = urls.local_path(URL)
    for content in (b"1234", b"5678"):
        objects.write_object(f"{URL}/a", content)
        assert (fetch(place) / "a").read_bytes() == content


def test_an_older_content_that_is_back_is_fetched(memory, monkeypatch):
    place, facts = urls.local_path(URL), {"ETag": "1", "LastModified": "12:00:00"}
    listed_with(monkeypatch, **facts)
    objects.write_object(f"{URL}/a", b"old")
    download = objects.download

    def replaced(url, path, report):  # after the listing
        objects.write_object(f"{URL}/a", b"new")
        download(url, path, report)

    with monkeypatch.context() as patched:
        patched.setattr("tokret.io.remote.fetching.download", replaced)
        assert (fetch(place) / "a").read_bytes() == b"new"
    objects.write_object(f"{URL}/a", b"old")
    facts["LastModified"] = "12:00:01"
    listed_with(monkeypatch, **facts)
    assert (fetch(place) / "a").read_bytes() == b"old"


@pytest.mark.parametrize("link", ["memory", "memory/bucket", "memory/bucket/run"])
def test_links_in_the_folder_of_copies_are_refused(memory, tmp_path, link):
    urls.local_path("memory://other/x")
    place = tmp_path / "cache" / link
    place.parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "disk").mkdir()
    place.symlink_to(tmp_path / "disk")
    with pytest.raises(UserError, match=f"{place} is a link; remove it, and name"):
        urls.local_path(URL)


def test_the_folder_of_copies_may_be_a_link(memory, tmp_path, monkeypatch):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    monkeypatch.setenv(urls.CACHE, str(tmp_path / "link"))
    place = urls.local_path(URL)
    assert urls.url_of(place) == URL and place.resolve() == place


def test_a_lease_is_read_again_where_that_matters(memory, monkeypatch):
    monkeypatch.setattr(leases, "SETTLES", 0.0)
    with leases.leased(f"{URL}/lease", "") as is_held:
        assert is_held(now=True)
        # As while this process was stopped: it has not renewed its lease since.
        objects.write_object(f"{URL}/lease", json.dumps({"owner": "x"}).encode())
        assert is_held()
        assert not is_held(now=True) and not is_held()
    assert objects.list_names(URL) == ["lease"]  # the other's


@pytest.mark.parametrize("small", [0, objects.SMALL])
def test_what_must_come_first_comes_before_each_try(
    memory, tmp_path, monkeypatch, small
):
    monkeypatch.setattr(retrying, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(objects, "SMALL", small)
    (tmp_path / "x").write_bytes(b"1")
    tries = []

    def before():
        tries.append(None)
        if len(tries) == 3:
            raise UserError("the lease was taken")

    def fail(*_, **__):
        raise OSError("503")

    for name in ("pipe_file", "put_file"):
        monkeypatch.setattr(MemoryFileSystem, name, fail)
    with pytest.raises(UserError, match="^the lease was taken$"):
        objects.upload(tmp_path / "x", f"{URL}/x", before)
    assert len(tries) == 3


@pytest.mark.parametrize("text", ["nan", "soon"])
def test_a_patience_that_is_no_time_is_refused(monkeypatch, text):
    monkeypatch.setenv(retrying.PATIENCE, text)
    with pytest.raises(UserError, match=f"{retrying.PATIENCE} is '{text}'; it must"):
        retrying.patience()
