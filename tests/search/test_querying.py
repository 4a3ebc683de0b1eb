import dataclasses
import importlib.util
import json
import re
import shlex
import shutil
import zlib

import msgspec
import numpy as np
import pytest

from tests.search.contents import read_catalogue, tampered
from tests.search.queries import query_index
from tokret import api
from tokret.commands import query
from tokret.commands.query import render
from tokret.errors import UserError
from tokret.runtime.compilation_cache import DEFAULT
from tokret.search.catalogue import FILE
from tokret.search.catalogue_writing import writing
from tokret.search.extractor import load_copy
from tokret.search.index_writer import Limits
from tokret.search.indexing import update_index
from tokret.search.querying import parse_box
from tokret.search.result_formats import to_text


@pytest.fixture
def index(load, photos, tmp_path):
    limits = Limits(rows=4, seconds=0.0, small=20)
    update_index(photos, tmp_path / "index", load, limits=limits)
    return tmp_path / "index"


@pytest.fixture
def results_of(index, loaded):
    def run(photo, box=None, top=20, root=None):
        return query_index(index, photo, box, top, lambda model: loaded, root)

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


def test_results_are_a_sequence_of_hits(results_of, photos):
    results = results_of(photos / "sea" / "1.jpg")
    assert results[:2] == results.hits[:2] and results[0].name == "sea/1.jpg"
    assert [*results] == results.hits and len(results) == 9


def test_a_name_that_differs_in_its_spaces_is_suggested(results_of, photos):
    odd = photos / "Screenshot 1.01.11\u202fAM.jpg"
    (photos / "sea" / "1.jpg").rename(odd)
    with pytest.raises(
        UserError, match="AM.jpg: missing; did you mean .*\u202fAM.jpg?"
    ):
        results_of(photos / "Screenshot 1.01.11 AM.jpg")
    assert len(results_of(odd)) == 9
    with pytest.raises(UserError, match="other.jpg: missing$"):
        results_of(photos / "other.jpg")


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


def test_files_that_are_gone_are_named(results_of, photos):
    query = photos / "sea" / "1.jpg"
    (photos / "sea" / "7.jpg").unlink()
    results = results_of(query)
    assert results.gone == ["sea/7.jpg"]
    assert "1 of these are gone from" in to_text(results).splitlines()[-1]
    moved = photos.rename(photos.with_name("moved"))
    results = results_of(moved / "sea" / "1.jpg", top=5)
    assert len(results.gone) == 5
    line = to_text(results).splitlines()[-1]
    assert line.endswith("index again, or name the folder where they are now: --root")
    results = results_of(moved / "sea" / "1.jpg", root=moved)
    assert results.gone == ["sea/7.jpg"]
    assert to_text(results).startswith(f"   1  1.0000  {moved}/sea/1.jpg\n")


def swap_rows(photos):
    a, b = min(photos), max(photos)
    place = photos[a].part, photos[a].row
    photos[a] = photos[a]._replace(part=photos[b].part, row=photos[b].row)
    photos[b] = photos[b]._replace(part=place[0], row=place[1])


def give_one_row_two_names(photos):
    a, b = min(photos), max(photos)
    photos[b] = photos[b]._replace(part=photos[a].part, row=photos[a].row)


def name_a_row_beyond_the_end(photos):
    photos[min(photos)] = photos[min(photos)]._replace(row=1000)


@pytest.mark.parametrize(
    "change", [swap_rows, give_one_row_two_names, name_a_row_beyond_the_end]
)
def test_a_catalogue_that_disagrees_with_its_parts_is_refused(
    results_of, index, photos, change, load
):
    query = photos / "sea" / "1.jpg"
    right = results_of(query).hits
    with tampered(index) as entries:
        change(entries)
    if change is not give_one_row_two_names:  # an update sees that a row has no photo
        with pytest.raises(UserError, match="is damaged: .* row .* is not of .*; ind"):
            results_of(query)
    assert update_index(photos, index, load).damaged
    repaired = results_of(query).hits
    assert [hit.name for hit in repaired] == [hit.name for hit in right]


def test_an_index_without_descriptors_is_refused(results_of, index, photos):
    before = read_catalogue(index)
    with writing(index, before.root, FILE, before.model) as writer:
        writer.drop(before.photos)
        writer.commit()
    with pytest.raises(UserError, match="has no photo with a descriptor"):
        results_of(photos / "sea" / "1.jpg")


def test_parts_of_other_dimensions_are_refused(results_of, index, photos):
    for part in (index / "parts").iterdir():
        array = np.load(part / "descriptors.npy")[:, :4].copy()
        np.save(part / "descriptors.npy", array)
        record = json.loads((part / "store.json").read_text())
        record |= {"dimensions": 4, "checksum": zlib.crc32(array.tobytes())}
        (part / "store.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"descriptors of \[4\] dimensions, not 8"):
        results_of(photos / "sea" / "1.jpg")


def test_parts_of_other_weights_are_refused(results_of, index, photos):
    catalogue = read_catalogue(index)
    model = msgspec.structs.replace(catalogue.model, weights="others")
    with writing(index, catalogue.root, FILE, model) as writer:
        writer.commit()
    with pytest.raises(UserError, match="has descriptors of another model"):
        results_of(photos / "sea" / "1.jpg")


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (lambda record: record["preprocessing"].update(scales=[0.5, 1.4]), "scales"),
        (lambda record: record["preprocessing"].update(longest_side=32), "longest_"),
        (lambda record: record["preprocessing"].update(interpolation=""), "interpol"),
        (lambda record: record["model"].update(p=2.0), r"model\.p: 2\.0 and "),
    ],
)
def test_a_part_of_another_extraction_is_refused_and_extracted_again(
    results_of, index, photos, load, change, difference
):
    photo = photos / "sea" / "1.jpg"
    right = results_of(photo).hits
    path = min((index / "parts").iterdir()) / "store.json"
    file = json.loads(path.read_text())
    change(file["record"])
    path.write_text(json.dumps(file))
    with pytest.raises(UserError, match=f"descriptors of another model .*{difference}"):
        results_of(photo)
    repaired = update_index(photos, index, load)
    assert len(repaired.damaged) == 1 and 0 < repaired.new < 9
    assert [hit.name for hit in results_of(photo).hits] == [hit.name for hit in right]


def test_a_query_goes_on_with_what_an_update_left(index, photos, load, loaded):
    old = read_catalogue(index).model.copy

    def late(copy):
        if copy == old:  # the rebuild ends when the catalogue was read already
            update_index(photos, index, load, rebuild=True)
        return load_copy(index / "weights" / copy)

    hits = query_index(index, photos / "sea" / "1.jpg", None, 5, late).hits
    assert hits[0].name == "sea/1.jpg" and len(hits) == 5
    assert read_catalogue(index).model.copy != old


def test_other_weights_are_refused(index, photos, loaded):
    model = msgspec.structs.replace(loaded.model, weights="others")
    other = dataclasses.replace(loaded, model=model)
    with pytest.raises(
        UserError, match=r"copy of the weights cannot be used .*weights: "
    ):
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


def test_compiled_programs_are_kept_where_the_command_has_it(
    index, photos, monkeypatch
):
    folders = []
    for module in (api, query):
        monkeypatch.setattr(module, "keep_compiled", folders.append)
    query.main((photos / "sea" / "1.jpg",), index, compilation_cache="")
    assert folders == [""]
    api.open_index(index)
    assert folders == ["", DEFAULT]


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
    assert "9 photos (9 extracted now, 0 gone)" in out
    assert "odd.png: empty" in out and ".txt 1" in out
    status, out, err = program(*query, "--top=3", f"--report={page}")
    assert status == 0, out + err
    lines = out.splitlines()
    assert lines[0].endswith("sea/1.jpg") and len(lines) == 5
    assert page.read_text().startswith("<!DOCTYPE html>")
    # The checkpoint changes and goes: the index has its own copy.
    shutil.rmtree(moved)
    assert program(*query)[0] == 0
    shutil.copytree(other_checkpoint, moved)
    refused(program(*made, f"--index={index}"), "--rebuild: ", "by another model (wei")
    status, out, err = program("index", photos, f"--index={index}")
    assert status == 0 and "9 photos (0 extracted now, 0 gone)" in out
    status, out, err = program(*made, f"--index={index}", "--rebuild")
    assert status == 0 and "9 photos (9 extracted now, 0 gone)" in out
    status, out, err = program(*query)
    assert status == 0 and "sea/1.jpg" in out.splitlines()[0]


def test_the_commands_of_the_guide(
    tokret, request, checkpoint, photos, tmp_path, monkeypatch
):
    guide = (request.config.rootpath / "docs" / "search.md").read_text()
    search = r"tokret ((?:index|query|duplicates) [^`\n]*)"
    commands = re.findall(rf"(?:`|^){search}", guide, re.MULTILINE)
    # A server's; tests/search/engines has servers.
    commands = [command for command in commands if "://" not in command]
    assert len(commands) == 23
    if importlib.util.find_spec("qdrant_edge") is None:
        begin = commands.index("index --index=runs/index --to=qdrant-edge")
        del commands[begin : begin + 4]
    monkeypatch.chdir(tmp_path)  # where the pages are written
    moved = shutil.copytree(photos, tmp_path / "moved")
    places = {
        "PHOTO.jpg": moved / "sea" / "1.jpg",
        "A.jpg": photos / "sea" / "1.jpg",
        "B.jpg": photos / "sea" / "5.jpg",
        "FOLDER": photos / "mountains",
        "PHOTOS": photos,
        "MOVED": moved,
        "runs/index": tmp_path / "index",
        "runs/lite0": checkpoint,
        "runs/own": checkpoint,
    }
    for command in commands:
        for name, path in places.items():
            command = re.sub(
                rf"(?<=[= ]){name}(?= |$)", shlex.quote(str(path)), command
            )
        status, out, err = tokret(*shlex.split(command))
        assert status == 0, command + out + err
        assert "are gone" not in out
        assert len(out.splitlines()) > ("--to=exact" not in command)
        if command.endswith(" --moved"):
            places["PHOTOS"] = moved
    assert {path.name for path in tmp_path.glob("*.html")} == {
        "answer.html",
        "duplicates.html",
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("index", "nowhere", "--checkpoint=x", "--index=y"),
            "nowhere is not a folder",
        ),
        (("query", "x.jpg"), "--index"),
        (("index", ".", "--index=y", "--ema"), "--ema: is of a checkpoint"),
        (("query", "x.jpg", "--index=y", "--root=nowhere"), "--root=nowhere is not a"),
        (("query", "x.jpg", "--index=y", "--report=a.txt"), "must be a file that ends"),
        (("query", "x.jpg", "--index=y", "--box=1"), "box=1 must be"),
    ],
)
def test_mistakes_are_a_line(program, refused, arguments, message):
    refused(program(*arguments), message)
