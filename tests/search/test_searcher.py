import numpy as np
import pytest

from tokret.errors import UserError
from tokret.search import held_parts
from tokret.search.index_writer import Limits
from tokret.search.indexing import update_index
from tokret.search.photos import view_of
from tokret.search.query_combination import combine
from tokret.search.querying import Query, search_photos
from tokret.search.searcher import Filters, Searcher

LIMITS = Limits(rows=4, seconds=0.0, small=20)


@pytest.fixture
def index(load, photos, tmp_path):
    update_index(photos, tmp_path / "index", load, limits=LIMITS)
    return tmp_path / "index"


@pytest.fixture
def searcher(index, load):
    return Searcher(index, load)


@pytest.fixture
def embedded(searcher, photos):
    """Returns a function that embeds photos, named from the root."""

    def embed(*names):
        side = searcher.model.longest_side
        return searcher.embed([view_of(photos / name, name, side) for name in names])

    return embed


def names(hits):
    return [hit.name for hit in hits]


def test_hits_are_those_of_a_query_of_one_photo(
    searcher, embedded, index, photos, load
):
    photo = photos / "sea" / "1.jpg"
    (expected,) = search_photos(Searcher(index, load, hold=False), [Query((photo,))])
    (hits,) = searcher.search(embedded("sea/1.jpg"), 20)
    assert hits == expected.hits and len(hits) == searcher.num_photos == 9
    assert hits[0].label == "sea" and len(hits[0].id) == 16
    assert searcher.search(embedded("sea/1.jpg"), 3) == [hits[:3]]


def test_several_queries_have_the_hits_of_each_alone(searcher, embedded):
    queries = embedded("sea/1.jpg", "sea/7.jpg", "mountains/4.jpg")
    together = searcher.search(queries, 5)
    assert together == [searcher.search(query[None], 5)[0] for query in queries]


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        (Filters(), 9),
        (Filters(folders=("sea",)), 4),
        (Filters(folders=("sea", "mountains")), 9),
        (Filters(labels=("mountains",)), 5),
        (Filters(folders=("sea",), labels=("mountains",)), 0),
        (Filters(folders=("se",)), 0),
    ],
)
def test_filters_keep_the_order(searcher, embedded, filters, count):
    (everything,) = searcher.search(embedded("sea/1.jpg"), 9)
    (hits,) = searcher.search(embedded("sea/1.jpg"), 9, filters)
    wanted = [hit for hit in everything if filters.accepts(hit.name.split("/")[0])]
    assert hits == wanted and len(hits) == count
    assert searcher.has_photos(filters) == (count > 0)


def test_a_folder_means_all_below_it(photos, index, load, jpeg):
    (photos / "sea" / "deep").mkdir()
    (photos / "sea" / "deep" / "x.jpg").write_bytes(jpeg(seed=50))
    (photos / "seaside.jpg").write_bytes(jpeg(seed=51))
    update_index(photos, index, load, limits=LIMITS)
    searcher = Searcher(index, load)
    query = searcher.descriptors([searcher.browse(Filters(), 0, 1)[0][0][0]])
    below = names(searcher.search(query, 20, Filters(folders=("sea",)))[0])
    assert len(below) == 5 and "sea/deep/x.jpg" in below
    (alone,) = searcher.search(query, 20, Filters(labels=("deep",)))
    assert names(alone) == ["sea/deep/x.jpg"]
    (direct,) = searcher.search(query, 20, Filters(labels=("",)))
    assert names(direct) == ["seaside.jpg"]
    assert searcher.folders() == {"mountains": 5, "sea": 5, "sea/deep": 1}
    assert searcher.labels() == {"": 1, "deep": 1, "mountains": 5, "sea": 4}


def test_photos_are_left_aside_by_their_content(photos, index, load, embedded):
    (photos / "copy.jpg").write_bytes((photos / "sea" / "1.jpg").read_bytes())
    update_index(photos, index, load, limits=LIMITS)
    searcher = Searcher(index, load)
    query = embedded("sea/1.jpg")
    (hits,) = searcher.search(query, 20)
    assert names(hits)[:2] == ["copy.jpg", "sea/1.jpg"] and hits[0].id == hits[1].id
    assert searcher.search(query, 1)[0] == hits[:1]
    assert searcher.search(query, 20, leave_out=[hits[0].id])[0] == hits[2:]
    found = searcher.photo(hits[0].id)
    assert found is not None and found.names == ("copy.jpg", "sea/1.jpg")
    assert found.label == "" and searcher.photo("0" * 16) is None
    (only,) = searcher.search(query, 20, Filters(labels=("sea",)))
    assert names(only)[0] == "sea/1.jpg" and "copy.jpg" not in names(only)


def test_ties_are_in_the_order_of_names_wherever_they_are_cut(photos, index, load):
    for name in ("b", "a", "d", "c"):  # other files of the same pixels
        content = (photos / "sea" / "1.jpg").read_bytes()
        (photos / f"{name}.jpg").write_bytes(content + name.encode())
    update_index(photos, index, load, limits=LIMITS)
    searcher = Searcher(index, load)
    (photo,) = search_photos(searcher, [Query((photos / "a.jpg",))])
    assert names(photo.hits)[:5] == ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "sea/1.jpg"]
    query = searcher.descriptors([photo.hits[0].id])
    for top in range(1, 7):
        assert searcher.search(query, top)[0] == searcher.search(query, 13)[0][:top]


def test_descriptors_of_photos_of_the_index(searcher, embedded):
    (hits,) = searcher.search(embedded("sea/1.jpg"), 2)
    found = searcher.descriptors([hits[0].id])
    np.testing.assert_allclose(found, embedded("sea/1.jpg"), atol=1e-6)
    with pytest.raises(UserError, match="is not in the index"):
        searcher.descriptors(["0" * 16])
    with pytest.raises(UserError, match="16 hexadecimal digits"):
        searcher.descriptors(["nonsense"])
    (row,) = searcher.descriptors([hits[1].id])
    again = searcher.descriptors([hits[1].id, hits[0].id, hits[1].id])
    assert (again == [row, found[0], row]).all()


def test_only_what_is_new_is_read(searcher, index, photos, load, jpeg, monkeypatch):
    read = []
    real = held_parts.open_part

    def open_part(folder, model, part):
        read.append(part)
        return real(folder, model, part)

    monkeypatch.setattr(held_parts, "open_part", open_part)
    assert not searcher.refresh() and not read
    (photos / "new.jpg").write_bytes(jpeg(seed=99))
    (photos / "sea" / "7.jpg").unlink()
    update_index(photos, index, load, limits=LIMITS)
    assert searcher.refresh() and not searcher.refresh()
    assert [len(part.digests) for part in read] == [1]
    whole = Searcher(index, load)
    ids = [found for found, _ in whole.browse(Filters(), 0, 20)[0]]
    assert searcher.num_photos == len(ids) == 9
    queries = whole.descriptors(ids)
    assert searcher.search(queries, 20) == whole.search(queries, 20)


def test_rows_of_merged_parts_are_not_read_again(
    searcher, index, photos, load, jpeg, monkeypatch
):
    monkeypatch.setattr(held_parts, "open_part", None)  # nothing is opened
    before = searcher.search(np.eye(8, dtype=np.float32), 9)
    merging = Limits(rows=100, seconds=0.0, small=1)
    (photos / "sea" / "1.jpg").rename(photos / "sea" / "renamed.jpg")
    update_index(photos, index, load, limits=merging)
    assert len([*(index / "parts").iterdir()]) == 1
    assert searcher.refresh()
    after = searcher.search(np.eye(8, dtype=np.float32), 9)
    scores = [[hit.score for hit in hits] for hits in before]
    assert [[hit.score for hit in hits] for hits in after] == scores
    assert "sea/renamed.jpg" in names(after[0]) and "sea/1.jpg" not in names(after[0])


def test_photos_are_added_and_removed(searcher, embedded, photos, jpeg):
    (photos / "sea" / "new.jpg").write_bytes(jpeg(seed=99))
    searcher.add([photos / "sea" / "new.jpg"])
    assert searcher.num_photos == 10
    (hits,) = searcher.search(embedded("sea/new.jpg"), 1)
    assert names(hits) == ["sea/new.jpg"]
    assert searcher.remove([hits[0].id]) == ["sea/new.jpg"]
    assert (photos / "sea" / "new.jpg").exists() and searcher.num_photos == 9
    assert "sea/new.jpg" not in names(searcher.search(embedded("sea/new.jpg"), 9)[0])


def test_all_are_read_again_when_few_rows_are_in_use(searcher, embedded, photos, jpeg):
    ids = [found for found, _ in searcher.browse(Filters(), 0, 9)[0]]
    searcher.remove(ids[:7])
    assert len(searcher.used_ids()) == 2
    (hits,) = searcher.search(embedded("sea/1.jpg"), 9)
    assert {hit.id for hit in hits} == set(ids[7:])


def test_int8_scores_are_nearly_those_of_float32(index, load, embedded):
    queries = embedded("sea/1.jpg", "mountains/2.jpg")
    exact = Searcher(index, load).search(queries, 9)
    rough = Searcher(index, load, precision="int8").search(queries, 9)
    for some, others in zip(exact, rough, strict=True):
        assert some[0].name == others[0].name
        scores = {hit.name: hit.score for hit in some}
        for hit in others:
            assert hit.score == pytest.approx(scores[hit.name], abs=0.02)


def test_a_query_of_several_photos():
    rows = np.eye(4, dtype=np.float32)
    np.testing.assert_allclose(combine(rows[:1], rows[:0]), rows[0])
    found = combine(rows[:2], rows[2:3])
    np.testing.assert_allclose(found, np.array([0.5, 0.5, -0.5, 0]) / 0.75**0.5)
    np.testing.assert_allclose(combine(rows[:0], rows[:1]), -rows[0])
    with pytest.raises(UserError, match="cancel out"):
        combine(rows[:1], np.concatenate([rows[:1], rows[:1]]) * 2)
    with pytest.raises(UserError, match="photos is empty"):
        combine(rows[:0], rows[:0])


def test_browsing_is_by_name(searcher):
    found, total = searcher.browse(Filters(folders=("sea",)), 1, 2)
    assert total == 4
    assert [name for _, name in found] == ["sea/3 <b>é.jpg", "sea/5.jpg"]
