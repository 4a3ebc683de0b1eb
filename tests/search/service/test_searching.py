import numpy as np
import pytest

from tests.search.queries import query_index
from tokret.data.views import photo_digest
from tokret.errors import UserError
from tokret.search.extractor import load_extractor
from tokret.search.indexing import update_index
from tokret.search.query_combination import combine

WHOLE = (40, 30)


def names(answer):
    assert answer.status_code == 200, answer.text
    return [result["name"] for result in answer.json()["results"]]


def refused(answer, status, *words, field=""):
    assert answer.status_code == status, answer.text
    found = answer.json()
    assert field is None or found.get("field", "") == field
    for word in words:
        assert word in found["error"]
    return True


@pytest.fixture
def ids(client):
    """The id of each photo, by name."""
    found = client.get("/photos", params={"top": 9}).json()["photos"]
    return {photo["name"]: photo["id"] for photo in found}


@pytest.mark.parametrize("box", [None, (3.0, 4.0, 40.0, 30.0)])
def test_an_upload_has_the_hits_and_scores_of_a_query(
    client, search, index, photos, load, box
):
    path = photos / "sea" / "1.jpg"
    fields = {"box": ",".join(map(str, box))} if box else {}
    answer = search(client, ("photo", path.read_bytes()), top=3, **fields)
    expected = query_index(index, path, box, 3, load)
    assert names(answer) == [hit.name for hit in expected]
    scores = [result["score"] for result in answer.json()["results"]]
    assert scores == pytest.approx([hit.score for hit in expected], abs=1e-5)
    found = answer.json()
    assert found["total"] == 9 and found["more"]
    size = {"width": 48, "height": 40}
    id_ = photo_digest(path.read_bytes())
    assert found["query"] == {
        "positive": [id_],
        "negative": [],
        "box": list(box) if box else None,
        **size,
    }
    first = found["results"][0]
    assert (
        first.items() >= ({"folder": "sea", "label": "sea", "missing": False}).items()
    )
    assert found["seconds"].keys() == {"decode", "extract", "search"}


def test_photos_of_other_shapes_and_sizes_fit_a_canvas(
    client, search, index, jpeg, tmp_path, load
):
    for size in ((60, 16), (16, 60), (200, 150), (7, 9)):
        path = tmp_path / "query.jpg"
        path.write_bytes(jpeg(seed=5, size=size))
        answer = search(client, ("photo", path.read_bytes()), top=9)
        expected = query_index(index, path, None, 9, load)
        scores = [result["score"] for result in answer.json()["results"]]
        assert scores == pytest.approx([hit.score for hit in expected], abs=1e-5)


def test_an_id_restores_an_upload_and_a_photo_of_the_index(
    client, search, photos, jpeg, ids
):
    content = jpeg(seed=77)
    uploaded = search(client, ("photo", content))
    again = search(client, like=photo_digest(content))
    assert names(uploaded) == names(again)
    assert again.json()["query"] == uploaded.json()["query"]
    box = search(client, like=photo_digest(content), box="0,0,20,20")
    assert names(box) and box.json()["query"]["box"] == [0, 0, 20, 20]
    for name, photo in ids.items():
        found = search(client, like=photo)
        assert names(found)[0] == name
        assert found.json()["query"]["width"] == 48


def test_unlike_photos_are_subtracted(client, search, ids, index, load):
    liked, unliked = ids["sea/1.jpg"], ids["mountains/2.jpg"]
    answer = search(client, like=liked, unlike=unliked, top=9)
    searcher = client.service.searcher
    rows = searcher.descriptors([liked, unliked])
    (expected,) = searcher.search(combine(rows[:1], rows[1:])[None], 9)
    assert names(answer) == [hit.name for hit in expected]


def test_filters_paging_and_the_query_itself(client, search, ids):
    photo = ids["sea/1.jpg"]
    everything = names(search(client, like=photo, top=9))
    pages = [search(client, like=photo, top=4, offset=offset) for offset in (0, 4, 8)]
    assert sum(map(names, pages), []) == everything
    assert [page.json()["more"] for page in pages] == [True, True, False]
    sea = [name for name in everything if name.startswith("sea/")]
    below = search(client, like=photo, folder="sea")
    assert names(below) == sea and below.json()["total"] == len(sea)
    assert names(search(client, like=photo, label="sea")) == sea
    both = search(client, like=photo, label=["sea", "mountains"], top=9)
    assert names(both) == everything
    others = search(client, like=photo, leave_out_query="yes", top=8)
    assert names(others) == everything[1:] and not others.json()["more"]


def test_near_duplicates_are_hidden_and_counted(
    client, search, ids, photos, index, load
):
    twin = photos / "sea" / "copy.jpg"
    twin.write_bytes((photos / "sea" / "1.jpg").read_bytes())
    update_index(photos, index, load)
    client.service.searcher.refresh()
    shown = search(client, like=ids["sea/1.jpg"], top=2)
    assert names(shown) == ["sea/1.jpg", "sea/copy.jpg"]
    hidden = search(client, like=ids["sea/1.jpg"], top=9, near_duplicates="hide").json()
    first, *others = hidden["results"]
    assert first["name"] == "sea/1.jpg" and first["near_duplicates"] >= 1
    assert "sea/copy.jpg" not in [other["name"] for other in others]
    assert sum(1 + result["near_duplicates"] for result in hidden["results"]) == 10


def test_a_new_photo_is_found_without_a_restart(
    client, search, photos, index, load, jpeg, monkeypatch
):
    monkeypatch.setattr("tokret.search.service.state.REFRESH_SECONDS", 0.0)
    (photos / "sea" / "new.jpg").write_bytes(jpeg(seed=99))
    update_index(photos, index, load)
    assert names(search(client, ("photo", jpeg(seed=99)), top=1)) == ["sea/new.jpg"]


def test_another_model_of_the_index_is_used_without_a_restart(
    serve, search, photos, index, other_checkpoint, loaded, monkeypatch
):
    monkeypatch.setattr("tokret.search.service.state.REFRESH_SECONDS", 0.0)
    other = load_extractor(other_checkpoint)
    models = {"old": loaded}
    with serve(load=lambda copy: models.get(copy, models["old"])) as client:
        path = photos / "sea" / "1.jpg"
        before = search(client, ("photo", path.read_bytes()), top=9).json()
        models["old"] = other
        update_index(photos, index, lambda copy: other, rebuild=True)
        search(client, ("photo", path.read_bytes()), top=9)  # may be refused once
        after = search(client, ("photo", path.read_bytes()), top=9).json()
    expected = query_index(index, path, None, 9, lambda copy: other)
    scores = [result["score"] for result in after["results"]]
    assert scores == pytest.approx([hit.score for hit in expected], abs=1e-5)
    assert not np.allclose(scores, [result["score"] for result in before["results"]])


def test_fields_are_checked(client, search, jpeg, ids):
    photo = ids["sea/1.jpg"]
    assert refused(search(client, top=3), 400, "name a photo", field="photo")
    assert refused(search(client, like="zz"), 400, "like", field="like")
    assert refused(search(client, like="0" * 16), 404, "0" * 16, field="like")
    assert refused(search(client, like=photo, top=0), 400, field="top")
    assert refused(search(client, like=photo, top=999), 400, field="top")
    assert refused(search(client, like=photo, colour="red"), 400, field="colour")
    assert refused(search(client, like=photo, box="1,2"), 400, "box", field="box")
    outside = search(client, like=photo, box="0,0,999,9")
    assert refused(outside, 422, "48 x 40", field="box")
    assert refused(search(client, like=photo, photo="x"), 400, "file", field="photo")
    empty = search(client, ("photo", b""))
    assert refused(empty, 400, "empty", field="photo")
    far = search(client, like=photo, offset=10_000, top=200)
    assert refused(far, 400, field="offset")
    opposite = search(client, like=photo, unlike=[photo, photo])
    assert opposite.status_code == 200
    assert refused(client.post("/search", json={}), 415)


def test_a_photo_whose_file_was_changed_or_removed(client, search, ids, photos, jpeg):
    (photos / "sea" / "1.jpg").write_bytes(jpeg(seed=50))
    (photos / "sea" / "5.jpg").unlink()
    assert refused(search(client, like=ids["sea/1.jpg"], box="0,0,9,9"), 404)
    found = search(client, like=ids["sea/5.jpg"], top=9).json()
    assert found["query"]["width"] is None
    missing = [r["name"] for r in found["results"] if r["missing"]]
    assert missing == ["sea/5.jpg"]


def test_an_index_that_is_damaged_later_is_searched_as_it_was(
    client, search, index, ids, monkeypatch, capfd
):
    monkeypatch.setattr("tokret.search.service.state.REFRESH_SECONDS", 0.0)

    def refresh():
        raise UserError(f"index={index} is damaged")

    monkeypatch.setattr(client.service.searcher, "refresh", refresh)
    assert names(search(client, like=ids["sea/1.jpg"]))[0] == "sea/1.jpg"
    assert "is damaged" in capfd.readouterr().err


def test_errors_name_no_paths_and_have_no_traceback(
    client, search, index, ids, monkeypatch
):
    def broken(*arguments):
        raise OSError(5, "broken", str(index))

    monkeypatch.setattr(client.service.searcher, "browse", broken)
    answer = client.get("/photos")
    assert refused(answer, 500, "terminal")
    assert str(index) not in answer.text and "Traceback" not in answer.text
