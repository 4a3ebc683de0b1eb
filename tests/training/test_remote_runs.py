"""Runs in object storage, read: what is fetched of them, and what counts."""

import shutil
from types import SimpleNamespace

import fsspec
import jax
import numpy as np
import pytest

import train
from tokret.config import stored
from tokret.errors import UserError
from tokret.io.remote import objects, urls
from tokret.io.remote.uploading import publish
from tokret.training.checkpoint_arrays import open_arrays
from tokret.training.checkpoint_digests import FILE, UnreadableError, verify
from tokret.training.checkpoint_metadata import read_config, read_metadata
from tokret.training.checkpoints import list_measured, list_steps
from tokret.training.remote_runs import drop_arrays, fetch_checkpoint, fetch_run
from tokret.training.weights import find_checkpoint

URL = "memory://bucket/run"


@pytest.fixture
def run(saved_run, config, tmp_path, monkeypatch):
    """The place of the local copy of a run in memory, with nothing in it."""
    monkeypatch.setenv(urls.CACHE, str(tmp_path / "cache"))
    store = fsspec.filesystem("memory").store
    store.clear()
    place = urls.local_path(URL)
    shutil.copytree(saved_run, place)
    stored.save(config, place / "config.json")
    (place / "metrics.jsonl").write_text("{}\n")
    publish(place)
    shutil.rmtree(place)
    yield place
    store.clear()


def files_of(folder):
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_small_files_list_a_run(run, config):
    fetch_run(run)
    assert len(files_of(run)) == 5  # config.json, and two of each checkpoint
    assert list_steps(run) == [4, 6] and list(list_measured(run)) == [4, 6]
    newest = find_checkpoint(run)
    assert newest.name == "6" and read_config(newest) == config
    verify(newest, only="_CHECKPOINT_METADATA")
    with pytest.raises(UnreadableError, match="is missing"):
        verify(newest)


def test_a_checkpoint_without_its_digests_does_not_count(run):
    objects.remove(f"{URL}/checkpoints/6/{FILE}")
    fetch_run(run)
    assert list_steps(run) == [4]


def test_what_was_removed_from_the_bucket_no_longer_counts(run):
    fetch_run(run)
    objects.remove(f"{URL}/checkpoints/4/{FILE}")
    assert list_steps(fetch_run(run)) == [6]


def test_arrays_are_fetched_when_they_are_read(run, abstract, saved_state):
    checkpoint = find_checkpoint(fetch_run(run))
    back = open_arrays(checkpoint).load(abstract())
    jax.tree.map(np.testing.assert_array_equal, back, saved_state(6))
    assert list_steps(run) == [4, 6]
    drop_arrays(checkpoint)
    assert files_of(checkpoint) == {FILE, "_CHECKPOINT_METADATA"}
    verify(fetch_checkpoint(checkpoint))


def test_a_damaged_object_is_noticed(run):
    (name, *_) = (n for n in objects.list_objects(URL) if "checkpoints/6/state/d/" in n)
    objects.write_object(f"{URL}/{name}", b"damaged")
    with pytest.raises(UnreadableError, match="checkpoints/6: damaged"):
        open_arrays(find_checkpoint(fetch_run(run)))


def test_one_checkpoint_has_the_config_of_its_run(run, config):
    checkpoint = fetch_run(run / "checkpoints" / "6")
    assert read_metadata(checkpoint).step == 6
    assert read_config(checkpoint) == config
    assert files_of(run) == {
        "config.json",
        f"checkpoints/6/{FILE}",
        "checkpoints/6/_CHECKPOINT_METADATA",
    }


def test_nothing_in_the_bucket_is_an_error_as_on_disk(run):
    nothing = fetch_run(urls.local_path("memory://bucket/none"))
    assert list_steps(nothing) == []
    with pytest.raises(UserError, match="there is no run at "):
        find_checkpoint(nothing)


def test_other_paths_stay(tmp_path):
    (tmp_path / "checkpoints" / "8" / "state").mkdir(parents=True)
    for call in (fetch_run, fetch_checkpoint, drop_arrays):
        call(tmp_path)
    assert list_steps(tmp_path) == [8]


def test_a_run_resumes_what_another_saved_while_photos_were_prepared(
    memory, opened, config, saved_state, abstract, monkeypatch, capsys
):
    monkeypatch.setattr("tokret.io.remote.leases.SETTLES", 0.0)
    workdir = urls.local_path(f"{memory.url}/late")
    programs = SimpleNamespace(abstract=abstract())
    setup = SimpleNamespace(programs=programs, schedule=SimpleNamespace(steps=1))
    dataset = SimpleNamespace(identity=lambda: config.dataset)

    def prepare_run(config):
        workdir.mkdir(parents=True)
        with opened(workdir) as checkpoints:
            checkpoints.save(saved_state(1))
        shutil.rmtree(workdir)  # that was another host's
        return dataset, setup

    monkeypatch.setattr("tokret.training.setup.prepare_run", prepare_run)
    monkeypatch.setattr(
        "tokret.training.setup.initial_state", lambda *_: saved_state(0)
    )
    monkeypatch.setattr(train, "keep_compiled", lambda *_: None)
    train.train(config, workdir)
    assert "memory://bucket/late is finished" in capsys.readouterr().out
