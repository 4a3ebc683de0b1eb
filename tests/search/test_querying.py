import dataclasses
import shutil

import pytest

from tokret.errors import UserError
from tokret.search.indexing import update_index
from tokret.search.page import render
from tokret.search.querying import ask, parse_box


@pytest.fixture
def describer(loaded):
    def make(parts):
        system = dataclasses.replace(loaded.system, folder=parts)
        return dataclasses.replace(loaded, system=system)

    return make


@pytest.fixture
def index(describer, photos, tmp_path):
    update_index(photos, tmp_path / "index", describer, at_once=4)
    return tmp_path / "index"


@pytest.fixture
def answer_to(index, loaded):
    def run(photo, box=None, top=20):
        return ask(index, photo, box, top, lambda maker: loaded)

    return run


def test_a_photo_finds_itself_first_and_all_others_in_order(answer_to, photos):
    answer = answer_to(photos / "sea" / "1.jpg")
    assert answer.hits[0].name == "sea/1.jpg"
    assert answer.hits[0].score == pytest.approx(1, abs=1e-5)
    assert len(answer.hits) == answer.num_photos == 9
    assert len({hit.name for hit in answer.hits}) == 9
    scores = [hit.score for hit in answer.hits]
    assert scores == sorted(scores, reverse=True)
    assert answer_to(photos / "sea" / "1.jpg", top=2).hits == answer.hits[:2]


def test_photos_that_are_gone_are_not_found(answer_to, photos, index, describer):
    (photos / "sea" / "1.jpg").rename(photos.parent / "1.jpg")
    update_index(photos, index, describer)
    answer = answer_to(photos.parent / "1.jpg", top=3)
    assert len(answer.hits) == 3 and answer.num_photos == 8
    assert "sea/1.jpg" not in {hit.name for hit in answer.hits}


def test_a_part_of_a_photo_asks(answer_to, photos):
    photo = photos / "sea" / "1.jpg"
    whole = answer_to(photo).hits[0]
    part = answer_to(photo, (0.0, 0.0, 24.0, 40.0)).hits
    assert part[0].score < whole.score
    with pytest.raises(UserError, match="reaches out of .* 48 x 40 pixels"):
        answer_to(photo, (0.0, 0.0, 49.0, 40.0))


@pytest.mark.parametrize(
    "text", ["1,2,3", "a,b,c,d", "5,5,5,9", "-1,0,4,4", "nan,0,1,1"]
)
def test_boxes_that_are_none(text):
    with pytest.raises(UserError, match="--box="):
        parse_box(text)


def test_weights_that_are_others_are_refused(index, photos, loaded):
    maker = dataclasses.replace(loaded.maker, weights="others")
    other = dataclasses.replace(loaded, maker=maker)
    with pytest.raises(UserError, match="made otherwise .weights"):
        ask(index, photos / "sea" / "1.jpg", None, 5, lambda maker: other)


def test_the_page_holds_its_pictures_and_escapes_names(answer_to, photos):
    photo = photos / "sea" / "3 <b>é.jpg"
    answer = answer_to(photo)
    (photos / "sea" / "7.jpg").unlink()
    page = render(answer, photo, (1.0, 2.0, 30.0, 40.0))
    assert page.count("data:image/webp;base64,") == 1 + 8
    assert "sea/7.jpg: missing" in page
    assert "<b>é" not in page and "&lt;b&gt;é" in page
    assert page.count("<rect") == 2 and "http:" not in page and "https:" not in page
    assert "default-src 'none'" in page


@pytest.mark.slow
def test_the_program(program, refused, checkpoint, other_checkpoint, photos, tmp_path):
    moved = shutil.copytree(checkpoint, tmp_path / "weights")
    index, page = tmp_path / "index", tmp_path / "answer.html"
    asking = ("tokret.search", "query", photos / "sea" / "1.jpg", f"--index={index}")
    refused(program(*asking), "is no index")
    (photos / "odd.png").write_bytes(b"")
    (photos / "notes.txt").write_text("")
    made = ("tokret.search", "index", photos, f"--checkpoint={moved}")
    status, out, err = program(*made, f"--index={index}")
    assert status == 0, out + err
    assert "9 photos (10 looked at now, 0 gone)" in out
    assert "odd.png: empty" in out and "1 other files passed over" in out
    status, out, err = program(*asking, "--top=3", f"--report={page}")
    assert status == 0, out + err
    lines = out.splitlines()
    assert lines[0].endswith("sea/1.jpg") and len(lines) == 5
    assert page.read_text().startswith("<!DOCTYPE html>")
    shutil.rmtree(moved)
    refused(program(*asking), "are gone from", "--checkpoint")
    other = program(*asking, f"--checkpoint={other_checkpoint}")
    refused(other, "made otherwise (weights")
    status, out, err = program(*asking, f"--checkpoint={checkpoint}")
    assert status == 0 and "sea/1.jpg" in out.splitlines()[0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "command"),
        (
            ("index", "nowhere", "--checkpoint=x", "--index=y"),
            "nowhere is not a folder",
        ),
        (("query", "x.jpg"), "--index"),
        (("query", "x.jpg", "--index=y", "--report=a.txt"), "must be a file that ends"),
        (("query", "x.jpg", "--index=y", "--box=1"), "--box=1 must be"),
    ],
)
def test_mistakes_are_a_line(program, refused, arguments, says):
    refused(program("tokret.search", *arguments), says)
