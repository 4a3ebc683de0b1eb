"""Checkpoints in object storage: saved, restored, removed, set aside."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tokret.errors import UserError
from tokret.io.remote import objects, retrying, urls
from tokret.training import remote_checkpoints
from tokret.training.checkpoint_digests import FILE, UnreadableError
from tokret.training.checkpoints import Checkpoints, list_measured, list_steps, remove
from tokret.training.remote_runs import fetch_run
from tokret.training.weights import find_checkpoint, load_weights, save_weights


@pytest.fixture
def run(storage):
    """The local copy of an empty folder in each kind of object storage."""
    return copy_of(f"{storage.url}/run")


@pytest.fixture
def run_in_memory(memory):
    return copy_of(f"{memory.url}/run")


def copy_of(url):
    place = urls.local_path(url)
    place.mkdir(parents=True)
    return place


def names(run, folder="checkpoints"):
    """The names directly below a folder of the run in the bucket."""
    found = objects.list_objects(f"{urls.url_of(run)}/{folder}")
    return sorted({name.split("/")[0] for name in found})


def test_a_run_saves_keeps_and_resumes(run, opened, saved_state, abstract):
    with opened(run) as checkpoints:
        for step, top1 in ((1, 0.3), (2, 0.9), (3, 0.0), (4, 0.5)):
            checkpoints.save(saved_state(step), {"top1": top1} if top1 else None)
        checkpoints.save(saved_state(4))
    assert names(run) == ["2", "3", "4"] and list_steps(run) == [2, 3, 4]
    arrays = [p for p in run.rglob("*") if p.is_file() and "state" in p.parts]
    assert not arrays
    with opened(fetch_run(run)) as checkpoints:
        assert checkpoints.latest_step() == 4
        back = checkpoints.restore(abstract(), 4)
        checkpoints.save(saved_state(5), {"top1": 0.1})
    jax.tree.map(np.testing.assert_array_equal, back, saved_state(4))
    assert names(run) == ["2", "4", "5"]
    assert list_measured(fetch_run(run))[2] == {"top1": 0.9}
    assert find_checkpoint(run, "best").name == "2"


def test_training_continues_while_an_upload_waits(
    run_in_memory, opened, saved_state, monkeypatch
):
    storage_works, committed = threading.Event(), []
    upload = remote_checkpoints.upload

    def slow(path, url, *before):
        assert storage_works.wait(600)
        if path.name == FILE:
            committed.append(url)
        upload(path, url, *before)

    monkeypatch.setattr(remote_checkpoints, "upload", slow)
    with opened(run_in_memory) as checkpoints:
        checkpoints.save(saved_state(1))
        checkpoints.check()
        assert not committed and list_steps(run_in_memory) == []
        storage_works.set()
        checkpoints.save(saved_state(2))  # once the one before is complete
        assert len(committed) >= 1
    assert names(run_in_memory) == ["1", "2"]


def test_an_interrupted_upload_does_not_count_and_is_removed(
    run, opened, saved_state, monkeypatch
):
    with opened(run) as checkpoints:
        checkpoints.save(saved_state(1))
    upload = remote_checkpoints.upload

    def fail(path, url, *before):
        if path.name in (FILE, "_METADATA"):
            raise retrying.UnavailableError("failed for 900 seconds")
        upload(path, url, *before)

    with monkeypatch.context() as patch:
        patch.setattr(remote_checkpoints, "upload", fail)
        with pytest.raises(retrying.UnavailableError), opened(run) as checkpoints:
            checkpoints.save(saved_state(2))
    assert list_steps(run) == [1] and list_steps(fetch_run(run)) == [1]
    assert names(run) == ["1", "2"]
    with opened(fetch_run(run)) as checkpoints:
        assert names(run) == ["1"]
        checkpoints.save(saved_state(2))
    assert list_steps(fetch_run(run)) == [1, 2]


def test_a_failed_upload_is_reported_at_the_next_check(
    run_in_memory, opened, saved_state, monkeypatch
):
    def fail(path, url, *before):
        raise retrying.UnavailableError("failed for 900 seconds")

    monkeypatch.setattr(remote_checkpoints, "upload", fail)
    with opened(run_in_memory) as checkpoints:
        checkpoints.save(saved_state(1))
        with pytest.raises(retrying.UnavailableError, match="900 seconds"):
            for _ in range(10_000):
                checkpoints.check()
                threading.Event().wait(0.02)


def test_what_must_come_first_is_called_before_one_counts(
    run_in_memory, config, saved_state
):
    found = []

    def before_commit():
        found.append(names(run_in_memory, "checkpoints/1"))
        raise UserError("the lease was removed")

    with (
        pytest.raises(UserError, match="the lease was removed"),
        Checkpoints(run_in_memory, config, before_commit) as checkpoints,
    ):
        checkpoints.save(saved_state(1))
    assert "state" in found[0] and FILE not in found[0]
    assert list_steps(fetch_run(run_in_memory)) == []


def test_a_checkpoint_of_a_run_that_took_the_lease_stays(
    run_in_memory, opened, config, saved_state
):
    with opened(run_in_memory) as checkpoints:
        checkpoints.save(saved_state(1))

    def before_commit():
        raise UserError("the lease was taken")

    with (
        pytest.raises(UserError, match="the lease was taken"),
        Checkpoints(run_in_memory, config, before_commit) as checkpoints,
    ):
        checkpoints.save(saved_state(1))
    assert list_steps(fetch_run(run_in_memory)) == [1]


def test_a_removal_that_is_interrupted_leaves_none_that_counts(
    run_in_memory, opened, saved_state, monkeypatch
):
    with opened(run_in_memory) as checkpoints:
        checkpoints.save(saved_state(1))
    removed = []

    def fail(url):
        removed.append(url)
        if len(removed) > 1:
            raise retrying.UnavailableError("failed for 900 seconds")
        objects.remove(url)

    monkeypatch.setattr(remote_checkpoints, "remove", fail)
    with pytest.raises(retrying.UnavailableError):
        remove(run_in_memory / "checkpoints" / "1")
    assert removed[0].endswith(f"/1/{FILE}")
    assert list_steps(fetch_run(run_in_memory)) == [] and names(run_in_memory) == ["1"]


def test_a_damaged_one_is_set_aside_with_its_data(run, opened, saved_state, abstract):
    with opened(run) as checkpoints:
        for step in (1, 2):
            checkpoints.save(saved_state(step))
    url = f"{urls.url_of(run)}/checkpoints/2"
    before = objects.list_objects(url)
    objects.write_object(f"{url}/state/_METADATA", b"damaged")
    with opened(fetch_run(run)) as checkpoints:
        with pytest.raises(
            UnreadableError, match="^[a-z0-9]+://bucket/run/checkpoints/2: dam"
        ):
            checkpoints.restore(abstract(), 2)
        moved = checkpoints.move_damaged(2)
        assert list_steps(run) == [1]
        assert int(checkpoints.restore(abstract(), 1).step) == 1
    assert names(run) == ["1"] and names(run, "damaged") == [moved.name]
    assert moved.name.startswith("2-")
    assert objects.list_objects(f"{urls.url_of(moved)}").keys() == before.keys()


def test_what_is_of_no_checkpoint_stays(run_in_memory, opened):
    url = f"{urls.url_of(run_in_memory)}/checkpoints"
    for name in ("notes.txt", "mine/x", "3/x", "44"):
        objects.write_object(f"{url}/{name}", b"")
    with opened(run_in_memory):
        pass
    assert names(run_in_memory) == ["44", "mine", "notes.txt"]


def test_weights_of_a_conversion_are_saved_too(run, config):
    params = {"model": {"w": np.arange(3.0)}}
    save_weights(run, params, {"bn": np.ones(2)}, config)
    back, statistics = load_weights(find_checkpoint(fetch_run(run)))
    np.testing.assert_array_equal(back["model"]["w"], np.arange(3.0))
    np.testing.assert_array_equal(statistics["bn"], np.ones(2))


@pytest.mark.parametrize("readable", [True, False])
@pytest.mark.parametrize("spec", [(), ("a",), (None, "b"), ("a", "b"), (("a", "b"),)])
def test_a_split_array_is_assembled(spec, readable, monkeypatch):
    """Of several processes the first may have only a part: it is gathered."""
    if not readable:
        monkeypatch.setattr(
            remote_checkpoints, "_is_readable_by_first", lambda array: False
        )
    mesh = Mesh(np.array(jax.devices()).reshape(2, 4), ("a", "b"))
    expected = np.arange(128, dtype=np.float32).reshape(8, 16)
    array = jax.device_put(expected, NamedSharding(mesh, PartitionSpec(*spec)))
    copied = remote_checkpoints.copy_to_first({"x": array})
    np.testing.assert_array_equal(copied["x"], expected)


def test_a_copy_is_not_the_memory_that_a_step_donates():
    array = jnp.zeros(4)
    copied = remote_checkpoints.copy_to_first({"x": array, "n": jnp.int32(3), "y": 2})
    jax.jit(lambda x: x + 1, donate_argnums=0)(array).block_until_ready()
    np.testing.assert_array_equal(copied["x"], np.zeros(4))
    assert copied["n"] == 3 and copied["n"].dtype == np.int32 and copied["y"] == 2
