import pytest

from tokret.search.index_writer import Limits
from tokret.search.indexing import update_index
from tokret.search.photos import view_of
from tokret.search.querying import Query, search_photos
from tokret.search.searcher import Searcher


@pytest.fixture
def index(load, photos, tmp_path):
    limits = Limits(rows=4, seconds=0.0, small=20)
    update_index(photos, tmp_path / "index", load, limits=limits)
    return tmp_path / "index"


@pytest.fixture
def searcher(index, load):
    return Searcher(index, load)


def embedded(searcher, *paths):
    side = searcher.model.longest_side
    return searcher.embed([view_of(path, path.name, side) for path in paths])


def test_hits_are_those_of_a_query(searcher, index, photos, load):
    photo = photos / "sea" / "1.jpg"
    (expected,) = search_photos(Searcher(index, load, hold=False), [Query((photo,))])
    (hits,) = searcher.search(embedded(searcher, photo), 20)
    assert [(h.name, h.score) for h in hits] == [
        (h.name, h.score) for h in expected.hits
    ]
    assert hits[0].label == "sea" and len(hits[0].id) == 16
    assert searcher.search(embedded(searcher, photo), 3) == [hits[:3]]
    assert searcher.num_photos == 9
