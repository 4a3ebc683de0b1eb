"""An index in object storage: made, updated and queried from any host; kills."""

import itertools
import shutil

import pytest
from fsspec.implementations.memory import MemoryFileSystem

import tokret as api
from tests.search import kill_points
from tests.search.contents import read_catalogue
from tokret.errors import UserError
from tokret.io.remote import cache_folder, objects, urls
from tokret.io.remote.fetching import fetch
from tokret.runtime import ending
from tokret.search import held_parts
from tokret.search.catalogue import FILE
from tokret.search.indexing import update_index
from tokret.search.remote_index import fetched_catalogue

URL = "memory://bucket/index"
NEVER = 10**9  # the step of an update that is not killed
CHANGES = ("pipe_file", "put_file", "rm_file")  # what writes to the storage


@pytest.fixture(autouse=True)
def fast(memory, monkeypatch):
    monkeypatch.setattr("tokret.io.remote.leases.SETTLES", 0.0)
    monkeypatch.setattr("tokret.io.remote.leases.EXPIRES", 0.0)


@pytest.fixture
def other_host(tmp_path, monkeypatch):
    """Goes to a host without local copies; returns the index's place there."""
    hosts = itertools.count(1)

    def move():
        monkeypatch.setenv(cache_folder.CACHE, str(tmp_path / f"host {next(hosts)}"))
        return urls.local_path(URL)

    return move


def names():
    return {name.partition("/")[0] for name in objects.list_objects(URL)}


def test_an_index_is_made_updated_and_queried_elsewhere(
    photos, load, other_host, monkeypatch
):
    change = update_index(photos, other_host(), load)
    assert (change.photos, change.new) == (9, 9) and names() == {
        *(FILE, "parts", "weights")
    }
    (photos / "sea" / "1.jpg").unlink()
    change = update_index(photos, other_host(), load)
    assert (change.photos, change.new, change.gone) == (8, 0, 1)
    other_host()
    index = api.open_index(URL)
    query = photos / "sea" / "5.jpg"
    found = index.query(query, top=3)
    assert found[0].name == "sea/5.jpg" and found.num_photos == 8
    # The query may be an object too, and the index may change meanwhile.
    objects.upload(query, "memory://bucket/query.jpg")
    (photos / "mountains" / "0.jpg").unlink()
    update_index(photos, other_host(), load, rebuild=True)
    assert index.query("memory://bucket/query.jpg", top=3)[0].name == "sea/5.jpg"
    with pytest.raises(UserError, match="memory://bucket/none.jpg: there is no such"):
        index.query("memory://bucket/none.jpg")


def test_errors_of_the_api_name_urls(other_host):
    other_host()
    with pytest.raises(UserError, match=f"^checkpoint={URL} is not a folder"):
        api.load(URL)
    with pytest.raises(UserError, match=f"^index={URL} is not an index"):
        api.open_index(URL)


def test_an_update_in_the_middle_of_a_query(photos, load, other_host, monkeypatch):
    update_index(photos, other_host(), load)
    real, left = held_parts.fetch_parts, [1]

    def fetch_parts(index, catalogue):
        if left[0]:  # another host replaces all parts and weights first
            left[0] -= 1
            update_index(photos, index, load, rebuild=True)
            shutil.rmtree(index / "parts")
        real(index, catalogue)

    monkeypatch.setattr(held_parts, "fetch_parts", fetch_parts)
    other_host()
    found = api.open_index(URL).query(photos / "sea" / "5.jpg", top=1)
    assert found[0].name == "sea/5.jpg" and not left[0]


def test_two_updates_are_refused(photos, load, other_host, monkeypatch):
    monkeypatch.setattr("tokret.io.remote.leases.EXPIRES", 60.0)
    monkeypatch.setattr("tokret.io.remote.leases.RENEWED", 0.05)
    index, tried = other_host(), []

    def loaded(copy):
        with pytest.raises(UserError, match=r"another process is updating it.* \(it"):
            update_index(photos, other_host(), load)
        # If it is killed now, what the first has made stays.
        assert ending._abandon is None
        tried.append(copy)
        return load(copy)

    update_index(photos, index, loaded)
    assert tried


def test_an_update_that_lost_its_lease_changes_nothing(
    photos, load, other_host, monkeypatch, tmp_path
):
    index, made = other_host(), {}

    def loaded(copy):  # for so long that another process has updated the index
        with monkeypatch.context() as patched:
            patched.setenv(cache_folder.CACHE, str(tmp_path / "other"))
            update_index(photos, urls.local_path(URL), load)
            made.update(objects.list_objects(URL))
        objects.write_object(f"{URL}/.lock", b"{}")  # and starts again
        return load(copy)

    with pytest.raises(UserError, match="its lock was removed or taken by another"):
        update_index(photos, index, loaded)
    left = objects.list_objects(URL)
    assert {name: left.get(name) for name in made} == made
    objects.remove(f"{URL}/.lock")
    other_host()
    assert api.open_index(URL).query(photos / "sea" / "5.jpg", top=1)


def test_folders_that_are_no_index_are_refused(photos, load, other_host):
    index = other_host()
    with (
        pytest.raises(UserError, match="is not an index"),
        fetched_catalogue(index),
    ):
        pass
    objects.write_object(f"{URL}/photos/1.jpg", b"")
    with pytest.raises(UserError, match="has other files, such as photos"):
        update_index(photos, other_host(), load)
    objects.write_object("memory://bucket/file", b"")
    with pytest.raises(UserError, match="memory://bucket/file is a file"):
        update_index(photos, urls.local_path("memory://bucket/file"), load)
    assert names() == {"photos"}


def test_an_update_that_fails_leaves_no_objects(photos, load, other_host):
    for photo in photos.rglob("*.jpg"):
        photo.write_bytes(b"no photo")
    with pytest.raises(UserError, match="none of the 9 photos"):
        update_index(photos, other_host(), load)
    assert names() == set()


class KilledError(BaseException):
    """Ends a process."""


@pytest.fixture
def run(other_host, monkeypatch):
    """Updates on a fresh host, killed at a change of the storage; whether it was."""
    steps = [0]

    def counted(name):
        real = getattr(MemoryFileSystem, name)

        def call(self, *arguments, **options):
            steps[0] -= 1
            if steps[0] <= 0:
                raise KilledError  # from then on nothing is written
            return real(self, *arguments, **options)

        return call

    for name in CHANGES:
        monkeypatch.setattr(MemoryFileSystem, name, counted(name))

    def update(root, scale, rebuild, step):
        steps[0] = step
        made = kill_points.extractor(scale)
        try:
            update_index(
                root,
                other_host(),
                lambda copy: made,
                rebuild=rebuild,
                limits=kill_points.LIMITS,
            )
        except KilledError:
            return True
        finally:
            steps[0] = NEVER
        return False

    return update


@pytest.mark.parametrize(
    ("scenario", "scale"), [("new", 1.0), ("rebuild", 2.0), ("update", 1.0)]
)
def test_after_a_kill_at_any_change_of_the_bucket_nothing_is_lost(
    tmp_path, other_host, run, scenario, scale, long
):
    root, rebuild = tmp_path / "photos", scenario == "rebuild"
    kill_points.make_photos(root)
    before, kept, stale = {}, set(), set()
    if scenario != "new":
        assert not run(root, 1.0, False, NEVER)
        before = dict(MemoryFileSystem.store)
        kept = set(read_catalogue(fetch(other_host())).photos)
    if scenario == "update":
        stale = kill_points.change_photos(root)
    kills = 0
    for step in itertools.count(2, 1 if long else 9):
        MemoryFileSystem.store.clear()
        MemoryFileSystem.store.update(before)
        if not run(root, scale, rebuild, step):
            break
        again = 3 * step % 23 + 2
        for killed_at in (again, NEVER):
            kills += 1
            found = fetch(other_host())
            kill_points.check(root, found, [1.0, 2.0], kept - stale, stale)
            killed = run(root, scale, rebuild, killed_at)
        assert not killed
        kill_points.check_complete(root, fetch(other_host()), scale)
    assert kills > 5


def test_what_was_uploaded_is_kept(tmp_path, run, other_host):
    kill_points.make_photos(tmp_path)
    assert run(tmp_path, 1.0, False, 40)
    known = read_catalogue(fetch(other_host())).photos
    assert not run(tmp_path, 1.0, False, NEVER)
    after = read_catalogue(fetch(other_host())).photos
    assert 0 < len(known) < len(after) == 11
    assert all(after[name].digest == entry.digest for name, entry in known.items())
