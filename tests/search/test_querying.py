import dataclasses
import shutil

import msgspec
import pytest

from tokret.commands.query import render
from tokret.errors import UserError
from tokret.search.indexing import update_index
from tokret.search.querying import parse_box, query_index


@pytest.fixture
def index(load, photos, tmp_path):
    update_index(photos, tmp_path / "index", load, segment_size=4)
    return tmp_path / "index"


@pytest.fixture
def results_of(index, loaded):
    def run(photo, box=None, top=20):
        return query_index(index, photo, box, top, lambda model: loaded)

    return run


def test_a_photo_retrieves_itself_first_and_all_others_in_order(results_of, photos):
    results = results_of(photos / "sea" / "1.jpg")
    assert results.hits[0].name == "sea/1.jpg"
    assert results.hits[0].score == pytest.approx(1, abs=1e-5)
    assert len(results.hits) == results.num_photos == 9
    assert len({hit.name for hit in results.hits}) == 9
    scores = [hit.score for hit in results.hits]
    assert scores == sorted(scores, reverse=True)
    assert results_of(photos / "sea" / "1.jpg", top=2).hits == results.hits[:2]


def test_photos_that_are_gone_are_not_retrieved(results_of, photos, index, load):
    (photos / "sea" / "1.jpg").rename(photos.parent / "1.jpg")
    update_index(photos, index, load)
    results = results_of(photos.parent / "1.jpg", top=3)
    assert len(results.hits) == 3 and results.num_photos == 8
    assert "sea/1.jpg" not in {hit.name for hit in results.hits}


def test_a_part_of_a_photo_is_a_query(results_of, photos):
    photo = photos / "sea" / "1.jpg"
    whole = results_of(photo).hits[0]
    part = results_of(photo, (0.0, 0.0, 24.0, 40.0)).hits
    assert part[0].score < whole.score
    with pytest.raises(UserError, match="is not inside .* 48 x 40 pixels"):
        results_of(photo, (0.0, 0.0, 49.0, 40.0))


@pytest.mark.parametrize(
    "text", ["1,2,3", "a,b,c,d", "5,5,5,9", "-1,0,4,4", "nan,0,1,1"]
)
def test_boxes_that_are_none(text):
    with pytest.raises(UserError, match="box="):
        parse_box(text)


def test_other_weights_are_refused(index, photos, loaded):
    model = msgspec.structs.replace(loaded.model, weights="others")
    other = dataclasses.replace(loaded, model=model)
    with pytest.raises(UserError, match="of another model .weights"):
        query_index(index, photos / "sea" / "1.jpg", None, 5, lambda model: other)


def test_the_page_holds_its_pictures_and_escapes_names(results_of, photos):
    photo = photos / "sea" / "3 <b>é.jpg"
    results = results_of(photo)
    (photos / "sea" / "7.jpg").unlink()
    page = render(results, photo, (1.0, 2.0, 30.0, 40.0))
    assert page.count("data:image/webp;base64,") == 1 + 8
    assert "sea/7.jpg: missing" in page
    assert "<b>é" not in page and "&lt;b&gt;é" in page
    assert page.count("<rect") == 2 and "http:" not in page and "https:" not in page
    assert "default-src 'none'" in page


@pytest.mark.slow
def test_the_program(program, refused, checkpoint, other_checkpoint, photos, tmp_path):
    moved = shutil.copytree(checkpoint, tmp_path / "weights")
    index, page = tmp_path / "index", tmp_path / "results.html"
    query = ("query", photos / "sea" / "1.jpg", f"--index={index}")
    refused(program(*query), "is not an index")
    (photos / "odd.png").write_bytes(b"")
    (photos / "notes.txt").write_text("")
    made = ("index", photos, f"--checkpoint={moved}")
    status, out, err = program(*made, f"--index={index}")
    assert status == 0, out + err
    assert "9 photos (10 extracted now, 0 gone)" in out
    assert "odd.png: empty" in out and "1 other files skipped" in out
    status, out, err = program(*query, "--top=3", f"--report={page}")
    assert status == 0, out + err
    lines = out.splitlines()
    assert lines[0].endswith("sea/1.jpg") and len(lines) == 5
    assert page.read_text().startswith("<!DOCTYPE html>")
    shutil.rmtree(moved)
    refused(program(*query), "are gone from", "checkpoint")
    other = program(*query, f"--checkpoint={other_checkpoint}")
    refused(other, "of another model (weights")
    status, out, err = program(*query, f"--checkpoint={checkpoint}")
    assert status == 0 and "sea/1.jpg" in out.splitlines()[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("index", "nowhere", "--checkpoint=x", "--index=y"),
            "nowhere is not a folder",
        ),
        (("query", "x.jpg"), "--index"),
        (("query", "x.jpg", "--index=y", "--report=a.txt"), "must be a file that ends"),
        (("query", "x.jpg", "--index=y", "--box=1"), "box=1 must be"),
    ],
)
def test_mistakes_are_a_line(program, refused, arguments, message):
    refused(program(*arguments), message)
