import contextlib
import dataclasses
import os
import re
import shutil
import signal

import numpy as np
import pytest
from PIL import Image

from tests.search.contents import change_rows, read_catalogue
from tokret.api import open_index
from tokret.errors import UserError
from tokret.io.file_locks import held
from tokret.retrieval.extraction import extract
from tokret.runtime import ending
from tokret.search import photo_extraction, photo_listing
from tokret.search.catalogue import FILE, PARTS, open_catalogue
from tokret.search.extractor import load_copy, load_extractor, save_copy
from tokret.search.index_writer import Limits
from tokret.search.indexing import NOTHING_KEPT, update_index
from tokret.search.part_stores import open_parts
from tokret.search.photos import photo_views

SMALL = Limits(rows=4, seconds=0.0, small=2)


@pytest.fixture
def update(load, photos, tmp_path):
    """Updates the index of the photos by the model that was restored once."""

    def run(root=photos, load=load, **options):
        return update_index(root, tmp_path / "index", load, **options)

    return run


@pytest.fixture
def interrupt(monkeypatch):
    """Expects that an update is interrupted after its first five photos."""
    extract_into = photo_extraction.extract_into
    monkeypatch.setattr(photo_listing, "AT_ONCE", 5)

    def interrupted(*arguments):
        extract_into(*arguments)
        raise KeyboardInterrupt

    @contextlib.contextmanager
    def expected():
        with monkeypatch.context() as patch:
            patch.setattr(photo_extraction, "extract_into", interrupted)
            with pytest.raises(KeyboardInterrupt):
                yield

    return expected


def counts(change):
    return change.photos, change.new, change.known, change.gone


def descriptors(index):
    """All good photos' descriptors, by name."""
    catalogue = read_catalogue(index)
    with open_catalogue(index) as opened:
        stores, damaged = open_parts(index, opened)
    assert not damaged
    return {
        name: np.array(stores[entry.part].descriptors[entry.row])
        for name, entry in catalogue.photos.items()
        if not entry.error
    }


def same(some, others):
    assert some.keys() == others.keys()
    return all((some[name] == others[name]).all() for name in some)


def test_an_index_follows_its_folder(update, photos, loaded, tmp_path, jpeg):
    index = tmp_path / "index"
    assert counts(update()) == (9, 9, 0, 0)
    found = descriptors(index)
    names = sorted(found)
    views = photo_views(photos, names, 48)
    system = loaded.system
    alone = extract(system.embed, system.variables, list(views), system.settings)
    np.testing.assert_allclose([found[n] for n in names], alone, atol=1e-5)
    assert counts(update()) == (9, 0, 0, 0)

    (photos / "sea" / "1.jpg").unlink()
    (photos / "sea" / "5.jpg").write_bytes(jpeg(seed=50, size=(48, 40)))
    (photos / "new.jpg").write_bytes(jpeg(seed=51, size=(48, 40)))
    assert counts(update()) == (9, 2, 0, 1)
    after = descriptors(index)
    assert after.keys() == found.keys() - {"sea/1.jpg"} | {"new.jpg"}
    kept = after.keys() & found.keys() - {"sea/5.jpg"}
    assert all((after[name] == found[name]).all() for name in kept)
    assert (after["sea/5.jpg"] != found["sea/5.jpg"]).any()


def test_what_is_known_by_its_content_is_not_extracted_again(update, photos, tmp_path):
    update()
    before = descriptors(tmp_path / "index")
    os.utime(photos / "sea" / "1.jpg", (0, 0))
    (photos / "sea" / "3 <b>é.jpg").rename(photos / "renamed.jpg")
    shutil.copy(photos / "sea" / "5.jpg", photos / "copy.jpg")
    assert counts(update()) == (10, 0, 3, 0)
    after = descriptors(tmp_path / "index")
    assert (after["renamed.jpg"] == before["sea/3 <b>é.jpg"]).all()
    assert (after["copy.jpg"] == after["sea/5.jpg"]).all()
    assert counts(update()) == (10, 0, 0, 0)


def test_copies_in_a_new_folder_are_extracted_once(update, photos, tmp_path):
    shutil.copy(photos / "sea" / "5.jpg", photos / "copy.jpg")
    assert counts(update()) == (10, 10, 0, 0)
    found = descriptors(tmp_path / "index")
    assert (found["copy.jpg"] == found["sea/5.jpg"]).all()
    rows = read_catalogue(tmp_path / "index").live_rows()
    assert sum(map(len, rows.values())) == 9


def test_a_photo_replaced_by_one_of_its_size_and_time_is_found_by_rehash(
    update, photos, tmp_path, jpeg
):
    old, new = jpeg(seed=70, size=(48, 40)), jpeg(seed=71, size=(48, 40))
    size = max(len(old), len(new))
    photo = photos / "sea" / "1.jpg"
    for content in (old, new):
        photo.write_bytes(content.ljust(size, b"\0"))
        os.utime(photo, (0, 0))
        change = update()
    assert change.new == 0
    before = descriptors(tmp_path / "index")
    assert counts(update(rehash=True)) == (9, 1, 0, 0)
    after = descriptors(tmp_path / "index")
    assert (before.pop("sea/1.jpg") != after.pop("sea/1.jpg")).any()
    assert same(before, after)


def test_small_parts_are_merged_and_unused_rows_dropped(update, photos, tmp_path):
    update(limits=dataclasses.replace(SMALL, small=20))
    before = descriptors(tmp_path / "index")
    assert len(os.listdir(tmp_path / "index" / PARTS)) == 3
    for name in ("sea/1.jpg", "sea/3 <b>é.jpg"):
        del before[name]
        (photos / name).unlink()
    limits = Limits(rows=20, seconds=0.0, small=2)
    assert counts(update(limits=limits)) == (7, 0, 0, 2)
    after = descriptors(tmp_path / "index")
    assert same(before, after)
    (part,) = (tmp_path / "index" / PARTS).iterdir()
    assert len(np.load(part / "descriptors.npy")) == 7


def test_what_is_indexed_and_skipped_is_reported_first(update, photos, load):
    (photos / "Screenshot 1.01.11\u202fAM.jpg").write_bytes(b"")
    (photos / ".trash").mkdir()
    (photos / ".trash" / "1.jpg").write_bytes(b"")
    (photos / "list.csv").write_bytes(b"")
    lines = []

    def loading(copy):
        lines.append("loading")
        return load(copy)

    change = update(load=loading, log=lines.append)
    assert set(change.bad) == {"Screenshot 1.01.11\u202fAM.jpg"}
    assert lines[0].startswith("note: 10 photos in ")
    assert lines[1:] == [
        "note: 1 file skipped, not photos by their suffix: .csv 1",
        "note: 1 hidden file or folder skipped: .trash",
        "loading",
    ]


def test_bad_photos_are_reported_once_and_read_again_when_they_change(
    update, photos, jpeg
):
    (photos / "empty.jpg").write_bytes(b"")
    change = update()
    assert counts(change) == (9, 9, 0, 0) and set(change.bad) == {"empty.jpg"}
    assert "empty" in change.bad["empty.jpg"]
    assert update().new == 0
    (photos / "empty.jpg").write_bytes(jpeg(seed=60, size=(48, 40)))
    change = update()
    assert counts(change) == (10, 1, 0, 0) and not change.bad


def test_a_photo_above_the_limit_is_read_when_that_is_raised(update, photos):
    Image.new("1", (11_000, 10_000)).save(photos / "large.png")
    change = update()
    assert "claims 11000 x 10000 pixels, more than" in change.bad["large.png"]
    limits = Limits(max_pixels=200_000_000)
    assert update(limits=limits).bad == change.bad  # it has not changed
    assert counts(update(limits=limits, rehash=True)) == (10, 1, 0, 0)


def everything(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*"))


def test_a_new_index_that_fails_leaves_nothing(update, tmp_path, loaded):
    root = tmp_path / "bad"
    root.mkdir()
    for name in ("a.jpg", "b.jpg"):
        (root / name).write_bytes(b"<html>")
    before = everything(tmp_path)
    index = tmp_path / "some" / "index"
    with pytest.raises(UserError, match="none of the 2 photos in .* the first: a.jpg"):
        update_index(root, index, lambda copy: loaded)

    def fail(copy):
        raise UserError("checkpoint: none")

    with pytest.raises(UserError, match="checkpoint: none"):
        update_index(root, index, fail)
    (root / "a.jpg").unlink()
    (root / "b.jpg").unlink()
    with pytest.raises(UserError, match="has no photo"):
        update_index(root, index, fail)
    assert everything(tmp_path) == [
        path for path in before if path.name not in ("a.jpg", "b.jpg")
    ]


def test_an_index_below_a_file_is_a_line(photos, load):
    index = photos / "sea" / "1.jpg" / "index"
    with pytest.raises(UserError, match="index=.* cannot be made: Not a directory"):
        update_index(photos, index, load)


def test_an_index_whose_photos_are_all_bad_now_stays(update, photos, tmp_path):
    update()
    before = (tmp_path / "index" / FILE).read_bytes()
    for path in photos.rglob("*.jpg"):
        path.write_bytes(b"<html>")
    with pytest.raises(UserError, match="none of the 9 photos"):
        update()
    assert (tmp_path / "index" / FILE).read_bytes() == before


def test_a_moved_library_is_not_extracted_again(update, photos, tmp_path):
    update()
    before = descriptors(tmp_path / "index")
    moved = tmp_path / "moved"
    shutil.copytree(photos, moved, copy_function=shutil.copyfile)
    shutil.rmtree(photos)
    with pytest.raises(UserError, match="moved: index=.* is of the photos in .*my ph"):
        update(moved)
    change = update(moved, moved=True)
    assert counts(change) == (9, 0, 9, 0)
    assert read_catalogue(tmp_path / "index").root == str(moved)
    assert same(before, descriptors(tmp_path / "index"))


def test_moved_to_a_part_of_the_library_is_refused(update, photos, tmp_path):
    update()
    before = (tmp_path / "index" / FILE).read_bytes()
    for moved in (True, False):
        with pytest.raises(UserError) as caught:
            update(photos / "sea", moved=moved)
        assert " is inside " in str(caught.value)
        assert "lacks 5 of the 9 photos of index=" in str(caught.value)
    other = tmp_path / "other"
    other.mkdir()
    for i in (0, 2, 4, 6):
        shutil.copy(photos / "mountains" / f"{i}.jpg", other)
    with pytest.raises(UserError, match="moved: .* lacks 5 of the 9 photos of .*; nam"):
        update(other, moved=True)
    assert (tmp_path / "index" / FILE).read_bytes() == before
    shutil.copy(photos / "mountains" / "8.jpg", other)
    assert counts(update(other, moved=True)) == (5, 0, 5, 4)


def test_the_line_of_an_interrupt_is_true(update, interrupt, load, tmp_path):
    lines = []

    def loading(copy):
        lines.append(ending.Interruption.line(signal.SIGINT))
        ending._abandon()  # as where the main thread does not react
        assert not (tmp_path / "index").exists()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        update(load=loading)
    assert lines == [f"interrupted: {NOTHING_KEPT}"]
    with interrupt():
        update()
    line = ending.Interruption.line(signal.SIGINT)
    assert "what was extracted is kept in" in line
    ending._abandon and ending._abandon()
    assert len(descriptors(tmp_path / "index")) == 5


def test_a_root_that_cannot_be_printed_is_refused(update, photos):
    odd = photos.rename(photos.with_name("two\nlines"))
    with pytest.raises(UserError, match=r"two\\nlines' has control characters"):
        update(odd)


def test_further_training_does_not_change_an_index(
    update, photos, tmp_path, checkpoint, other_checkpoint, jpeg
):
    index = tmp_path / "index"
    run = shutil.copytree(checkpoint, tmp_path / "run")
    update(load=lambda copy: load_extractor(run))
    before = descriptors(index)
    shutil.rmtree(run)  # as after more training, which prunes the checkpoint
    shutil.copytree(other_checkpoint, run)
    with pytest.raises(UserError, match="rebuild: .* by another model .weights: "):
        update(load=lambda copy: load_extractor(run))

    (photos / "new.jpg").write_bytes(jpeg(seed=51, size=(48, 40)))
    assert counts(update(load=load_extractor)) == (10, 1, 0, 0)
    after = descriptors(index)
    del after["new.jpg"]
    assert same(before, after)


def test_a_rebuild_extracts_all_again_and_is_complete_at_once(
    update, tmp_path, other_checkpoint, interrupt
):
    index = tmp_path / "index"
    update()
    before, old = descriptors(index), read_catalogue(index)
    other = load_extractor(other_checkpoint)

    def rebuild(**options):
        return update(load=lambda copy: other, rebuild=True, limits=SMALL, **options)

    with interrupt():
        rebuild()
    # The old index answers.
    assert same(before, descriptors(index)) and read_catalogue(index) == old
    assert len(os.listdir(index / "weights")) == 2
    assert counts(rebuild()) == (9, 4, 0, 0)  # five were done
    after, new = descriptors(index), read_catalogue(index)
    assert after.keys() == before.keys()
    assert all((after[name] != before[name]).any() for name in after)
    assert new.model.weights == other.model.weights
    assert os.listdir(index / "weights") == [new.model.copy]
    assert sorted(os.listdir(index / PARTS)) == sorted(new.live_rows())
    assert counts(update(load=load_extractor)) == (9, 0, 0, 0)


def test_an_interrupted_index_resumes_whatever_changed_in_its_folder(
    update, interrupt, photos, tmp_path, jpeg
):
    with interrupt():
        update()
    found = descriptors(tmp_path / "index")
    assert len(found) == 5
    (photos / "a new one.jpg").write_bytes(jpeg(seed=51, size=(48, 40)))
    (photos / min(found)).rename(photos / "renamed.jpg")
    change = update()
    assert counts(change) == (10, 5, 1, 0)
    after = descriptors(tmp_path / "index")
    found["renamed.jpg"] = found.pop(min(found))
    assert same(found, {name: after[name] for name in found})


def test_a_rebuild_may_change_the_settings_alone(update, photos, tmp_path):
    update()
    change = update(
        load=lambda copy: load_extractor(copy, longest_side=32), rebuild=True
    )
    assert counts(change) == (9, 9, 0, 0)
    assert read_catalogue(tmp_path / "index").model.longest_side == 32
    assert counts(update(load=load_extractor)) == (9, 0, 0, 0)


def test_a_damaged_part_is_extracted_again(update, tmp_path):
    index = tmp_path / "index"
    update(limits=SMALL)
    before = descriptors(index)
    part = min((index / PARTS).iterdir())
    content = bytearray((part / "descriptors.npy").read_bytes())
    content[-1] ^= 1
    (part / "descriptors.npy").write_bytes(content)
    change = update()
    assert len(change.damaged) == 1 and 0 < change.new < 9 and change.photos == 9
    after = descriptors(index)
    assert after.keys() == before.keys()
    for name in after:
        np.testing.assert_allclose(after[name], before[name], atol=1e-6)
    assert not update().damaged


def damage(index, copy, checkpoint):
    path = max((copy / "checkpoints" / "0").rglob("d/*"), key=os.path.getsize)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def remove(index, copy, checkpoint):
    shutil.rmtree(copy)


def swap(index, copy, checkpoint):
    """Puts the copy of an index of other scales in its place."""
    shutil.rmtree(copy)
    save_copy(load_extractor(checkpoint, scales=[0.5, 1.4]), copy)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (damage, "damaged|digest|changed"),
        (remove, "it is missing"),
        (swap, "{copy}: scales: .* and "),
    ],
)
def test_damaged_weights_are_repaired_by_the_same_weights(
    update, photos, tmp_path, checkpoint, change, words
):
    index = tmp_path / "index"

    def load(copy):
        return load_extractor(checkpoint)

    update(load=load)
    before = descriptors(index)
    copy = index / "weights" / read_catalogue(index).model.copy
    change(index, copy, checkpoint)
    with pytest.raises(UserError, match="its copy of the weights cannot") as caught:
        update(load=load_copy)
    assert re.search(words.format(copy=copy), str(caught.value))
    assert "use another checkpoint" not in str(caught.value)
    assert counts(update(load=load)) == (9, 0, 0, 0)
    assert counts(update(load=load_copy)) == (9, 0, 0, 0)
    assert same(before, descriptors(index))
    assert os.listdir(index / "weights") == [read_catalogue(index).model.copy]


def test_a_copy_that_is_whole_is_kept(update, tmp_path):
    update()
    copy = read_catalogue(tmp_path / "index").model.copy
    update()
    assert read_catalogue(tmp_path / "index").model.copy == copy


def test_an_odd_value_is_not_the_copy_s_damage(update, tmp_path):
    update()
    with pytest.raises(UserError, match="^longest_side"):
        update(load=lambda copy: load_copy(copy, longest_side=-1), rebuild=True)


def test_a_damaged_catalogue_can_be_rebuilt(update, tmp_path):
    index = tmp_path / "index"
    update()
    before = descriptors(index)
    change_rows(index, "UPDATE meta SET root = '/elsewhere'")
    with pytest.raises(UserError, match="another checksum.*: index its photos again"):
        update()
    assert len(os.listdir(index / PARTS)) == 1  # nothing was removed
    # The index has one copy of its weights, which is taken.
    assert counts(update(load=load_copy, rebuild=True)) == (9, 9, 0, 0)
    assert same(before, descriptors(index))


def test_an_index_that_has_lost_its_weights_is_rebuilt(
    update, tmp_path, photos, checkpoint
):
    index = tmp_path / "index"
    update()
    for copy in (index / "weights").iterdir():
        shutil.rmtree(copy)
    words = (
        f"index={index}: its copy of the weights cannot be used (it is missing); "
        "index its photos again with rebuild and a checkpoint"
    )
    with pytest.raises(UserError, match=re.escape(words)):
        update(load=load_copy)
    with pytest.raises(UserError, match=re.escape(words)):
        open_index(index).query(photos / "sea" / "1.jpg")
    change = update(load=lambda _: load_extractor(checkpoint), rebuild=True)
    assert counts(change) == (9, 9, 0, 0)
    assert open_index(index).query(photos / "sea" / "1.jpg")[0].name == "sea/1.jpg"


def test_an_index_is_of_one_folder(update, tmp_path, photos):
    update()
    other = tmp_path / "others"
    other.mkdir()
    shutil.copy(photos / "sea" / "1.jpg", other)
    with pytest.raises(UserError, match="moved: .* set this if they are in .*others"):
        update(other)


def test_other_folders_stay_as_they_are(update, tmp_path):
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match=r"has other files, such as thesis\.txt"):
        update()
    assert os.listdir(tmp_path / "index") == ["thesis.txt"]


def test_a_folder_of_weights_is_no_index(update, tmp_path):
    mine = tmp_path / "index" / "weights" / "0123456789abcdef"
    mine.mkdir(parents=True)
    with pytest.raises(UserError, match=r"has other files, such as weights"):
        update()
    assert mine.is_dir() and os.listdir(tmp_path / "index") == ["weights"]


def test_a_folder_without_photos_empties_no_index(update, photos, tmp_path):
    update()
    found = descriptors(tmp_path / "index")
    for path in photos.rglob("*.jpg"):
        path.unlink()
    with pytest.raises(UserError, match="has no photo"):
        update()
    assert descriptors(tmp_path / "index").keys() == found.keys()


def test_two_processes_do_not_update_an_index_at_once(update, tmp_path):
    update()
    with (
        held(tmp_path / "index" / ".lock", "mine"),
        pytest.raises(UserError, match="another process is updating it"),
    ):
        update()
