import dataclasses
import os
import signal
import time

import msgspec
import numpy as np
import pytest

from tokret.errors import UserError
from tokret.retrieval.extraction import extract
from tokret.retrieval.store.reading import read_store
from tokret.search import indexing
from tokret.search.catalogue import read_catalogue
from tokret.search.indexing import SEGMENTS, update_index
from tokret.search.photos import photo_views


@pytest.fixture
def update(loaded, photos, tmp_path):
    """Updates the index of the photos by the model that was restored once."""

    def load(segments):
        system = dataclasses.replace(loaded.system, folder=segments)
        return dataclasses.replace(loaded, system=system)

    def run(root=photos, **options):
        return update_index(root, tmp_path / "index", load, **options)

    return run


def counts(change):
    return change.photos, change.new, change.gone


def descriptors(index):
    """All good photos' descriptors, by name."""
    catalogue = read_catalogue(index)
    stores = {
        name: read_store(index / SEGMENTS / name) for name in catalogue.segments()
    }
    return {
        name: np.array(stores[entry.segment].descriptors[entry.row])
        for name, entry in catalogue.photos.items()
        if not entry.error
    }


def test_an_index_follows_its_folder(update, photos, loaded, tmp_path, jpeg):
    index = tmp_path / "index"
    assert counts(update(segment_size=4)) == (9, 9, 0)
    found = descriptors(index)
    names = sorted(found)
    views = photo_views(photos, names, 48)
    system = loaded.system
    alone = extract(system.embed, system.variables, list(views), system.settings)
    np.testing.assert_allclose([found[n] for n in names], alone, atol=1e-5)
    assert counts(update()) == (9, 0, 0)

    (photos / "sea" / "1.jpg").unlink()
    (photos / "sea" / "5.jpg").write_bytes(jpeg(seed=50, size=(48, 40)))
    (photos / "new.jpg").write_bytes(jpeg(seed=51, size=(48, 40)))
    assert counts(update()) == (9, 2, 1)
    after = descriptors(index)
    assert after.keys() == found.keys() - {"sea/1.jpg"} | {"new.jpg"}
    same = after.keys() & found.keys() - {"sea/5.jpg"}
    assert all((after[name] == found[name]).all() for name in same)
    assert (after["sea/5.jpg"] != found["sea/5.jpg"]).any()


def test_many_segments_are_merged_into_one(update, tmp_path, monkeypatch):
    monkeypatch.setattr(indexing, "MAX_SEGMENTS", 20)
    update(segment_size=3)
    before = descriptors(tmp_path / "index")
    assert len(read_catalogue(tmp_path / "index").segments()) == 3
    monkeypatch.setattr(indexing, "MAX_SEGMENTS", 2)
    assert update().new == 0
    after = descriptors(tmp_path / "index")
    assert after.keys() == before.keys()
    assert all((after[name] == before[name]).all() for name in after)
    assert len(os.listdir(tmp_path / "index" / SEGMENTS)) == 1


def test_bad_photos_are_reported_once_and_read_again_when_they_change(
    update, photos, jpeg
):
    (photos / "empty.jpg").write_bytes(b"")
    change = update()
    assert change.photos == 9 and set(change.bad) == {"empty.jpg"}
    assert "empty" in change.bad["empty.jpg"]
    assert update().new == 0
    (photos / "empty.jpg").write_bytes(jpeg(seed=60, size=(48, 40)))
    change = update()
    assert change.photos == 10 and change.new == 1 and not change.bad


def test_photos_that_are_all_bad_do_not_end_it(update, tmp_path):
    root = tmp_path / "bad"
    root.mkdir()
    for name in ("a.jpg", "b.jpg"):
        (root / name).write_bytes(b"<html>")
    change = update(root)
    assert change.photos == 0 and set(change.bad) == {"a.jpg", "b.jpg"}


def test_an_index_is_of_one_folder_and_one_model(update, tmp_path, loaded, photos):
    update()
    other = tmp_path / "others"
    other.mkdir()
    with pytest.raises(UserError, match="is an index of .*my photos"):
        update(other)
    model = msgspec.structs.replace(loaded.model, weights="others")
    with pytest.raises(UserError, match="of another model .weights: "):
        update_index(
            photos,
            tmp_path / "index",
            lambda segments: dataclasses.replace(loaded, model=model),
        )


def test_other_folders_stay_as_they_are(update, tmp_path):
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match=r"has other files, such as thesis\.txt"):
        update()
    assert os.listdir(tmp_path / "index") == ["thesis.txt"]


def test_a_folder_without_photos_empties_no_index(update, photos, tmp_path):
    update()
    found = descriptors(tmp_path / "index")
    for path in photos.rglob("*.jpg"):
        path.unlink()
    with pytest.raises(UserError, match="has no photo"):
        update()
    assert descriptors(tmp_path / "index").keys() == found.keys()


@pytest.mark.slow
def test_after_kills_it_ends_as_if_undisturbed(
    start, program, checkpoint, photos, tmp_path
):
    def arguments(name):
        return (
            *("index", photos, f"--checkpoint={checkpoint}"),
            f"--index={tmp_path / name}",
        )

    status, out, err = program(*arguments("whole"))
    assert status == 0, out + err
    for moment in ("segments", "journal"):
        process = start(*arguments("killed"))
        pattern = {"segments": "segments/*", "journal": "segments/*/finished"}[moment]
        while process.poll() is None and not any((tmp_path / "killed").glob(pattern)):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    status, out, err = program(*arguments("killed"))
    assert status == 0, out + err
    whole, killed = (descriptors(tmp_path / name) for name in ("whole", "killed"))
    assert whole.keys() == killed.keys() and len(whole) == 9
    assert all((whole[name] == killed[name]).all() for name in whole)
    files = [
        sorted(
            p.relative_to(tmp_path / n).as_posix() for p in (tmp_path / n).rglob("*")
        )
        for n in ("whole", "killed")
    ]
    assert files[0] == files[1]
