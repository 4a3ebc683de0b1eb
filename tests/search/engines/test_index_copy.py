"""An index that an engine searches: the answers of the exact search, by way of it."""

import numpy as np
import pytest

from tokret.errors import UserError
from tokret.search.catalogue import open_catalogue
from tokret.search.engines.index_copy import copy_index, measure_recall, planned_record
from tokret.search.engines.recording import (
    in_shard,
    next_record,
    parse_shard,
    recorded_engine,
)
from tokret.search.filters import Filters
from tokret.search.indexing import update_index
from tokret.search.searcher import Searcher

EDGE = "qdrant-edge"


@pytest.fixture
def index(tmp_path, photos, load):
    update_index(photos, tmp_path / "index", load)
    return tmp_path / "index"


def searchers(index, load):
    by_engine, exact = (Searcher(index, load, engine=name) for name in ("", "exact"))
    assert (by_engine.engine, exact.engine) == (EDGE, "exact")
    return by_engine, exact


def assert_same(by_engine, exact):
    rng = np.random.default_rng(0)
    queries = rng.standard_normal((3, 8)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    for top in (1, 4, 99):
        found = by_engine.search(queries, top)
        assert found == exact.search(queries, top)
        assert len(found[0]) == min(top, exact.num_photos)
    first = found[0][0]
    for filters in (
        Filters(("sea",)),
        Filters(("sea", "mountains")),
        Filters(("",), ("sea",)),
        Filters(("none",)),
        Filters((), ("sea", "none")),
    ):
        found = by_engine.search(queries, 9, filters)
        assert found == exact.search(queries, 9, filters)
        found = by_engine.search(queries, 9, filters, [first.id])
        assert found == exact.search(queries, 9, filters, [first.id])


def test_an_engine_gives_the_exact_hits_and_scores(index, load):
    url, change = copy_index(index, EDGE, "")
    assert (url, change) == (EDGE, (9, 0, 9))
    by_engine, exact = searchers(index, load)
    assert not by_engine._by_engine.pending.any()
    assert_same(by_engine, exact)
    recall = measure_recall(index)
    assert (recall.top, recall.queries, recall.recall) == (9, 9, 1.0)
    assert recall.ratio > 0


def test_an_engine_that_lags_behind_is_never_wrong(index, photos, load, jpeg):
    copy_index(index, EDGE, "")
    before, _ = searchers(index, load)
    for number in range(3):
        (photos / f"new{number}.jpg").write_bytes(jpeg(seed=20 + number, size=(48, 40)))
    removed, kept, *_ = sorted((photos / "sea").iterdir())
    removed.unlink()
    (photos / "copy.jpg").write_bytes(kept.read_bytes())
    update_index(photos, index, load)
    by_engine, exact = searchers(index, load)
    assert by_engine._by_engine.pending.sum() == 3
    assert_same(by_engine, exact)
    assert before.refresh() and not before.refresh()
    assert_same(before, exact)
    assert copy_index(index, "", "")[1] == (4, 1, 11)
    by_engine, exact = searchers(index, load)
    assert not by_engine._by_engine.pending.any()
    assert_same(by_engine, exact)
    assert copy_index(index, EDGE, "")[1] == (0, 0, 11)


def test_an_engine_that_is_lost_is_never_wrong(index, load):
    copy_index(index, EDGE, "")
    (index / "engines" / EDGE / "engine.json").unlink()
    assert_same(*searchers(index, load))
    assert copy_index(index, "", "")[1] == (9, 0, 9)


def test_another_model_builds_the_engine_again(
    index, photos, load, other_checkpoint, loaded
):
    from tokret.search.extractor import load_extractor

    copy_index(index, EDGE, "")
    other = load_extractor(other_checkpoint)
    update_index(photos, index, lambda copy: other, rebuild=True)
    assert_same(*searchers(index, lambda copy: other))
    assert copy_index(index, "", "")[1] == (9, 0, 9)
    assert_same(*searchers(index, lambda copy: other))


def test_an_index_forgets_its_engine(index, load):
    copy_index(index, EDGE, "")
    assert copy_index(index, "exact", "") is None
    assert Searcher(index, load).engine == "exact"
    assert copy_index(index, "", "") is None
    with pytest.raises(UserError, match="engine=qdrant-edge does not have the index"):
        Searcher(index, load, engine=EDGE)
    with pytest.raises(UserError, match="engine=x is no engine"):
        Searcher(index, load, engine="x")
    assert measure_recall(index) is None


def test_an_engine_that_cannot_be_reached_is_not_recorded(index):
    with pytest.raises(UserError, match="milvus://127.0.0.1:1/photos: "):
        copy_index(index, "milvus://127.0.0.1:1/photos", "")
    with open_catalogue(index) as catalogue:
        assert recorded_engine(catalogue) is None


def test_shards_divide_the_photos():
    paths = [f"{number}/{number}.jpg" for number in range(1000)]
    shards = [{*filter(in_shard(f"{k}/4"), paths)} for k in range(1, 5)]
    assert set.union(*shards) == {*paths} and sum(map(len, shards)) == 1000
    assert min(map(len, shards)) > 200
    assert {*filter(in_shard(""), paths)} == {*paths}


@pytest.mark.parametrize(
    "shard", ["0/2", "3/2", "1", "1/", "/2", "a/b", "01/2", "-1/2", "1/2/3", "²/2"]
)
def test_other_shards_are_refused(shard):
    with pytest.raises(UserError, match="must be K/N"):
        parse_shard(shard)


def test_a_shard_is_of_a_server_and_stays():
    url = "milvus://127.0.0.1:19530/photos"
    record = next_record(None, url, "1/2")
    assert record.shard == "1/2"
    assert next_record(record, "", "") == record
    moved = next_record(record, "milvus://127.0.0.1:19530/others", "")
    assert moved.shard == "1/2" and moved.identity != record.identity
    with pytest.raises(UserError, match="shard=2/2: the index is shard 1/2"):
        next_record(record, "", "2/2")
    with pytest.raises(UserError, match="name the server with to"):
        next_record(None, EDGE, "1/2")
    with pytest.raises(UserError, match="name the server with to"):
        next_record(None, "", "1/2")


def test_what_will_be_recorded_is_known_before(tmp_path, index):
    assert planned_record(tmp_path / "none", "", "") is None
    assert planned_record(index, EDGE, "").url == EDGE
    with pytest.raises(UserError, match="to=qdrant-egde is no engine; did you mean"):
        planned_record(index, "qdrant-egde", "")


def test_commands_copy_and_search(tokret, tmp_path, photos, checkpoint):
    index = f"--index={tmp_path / 'index'}"
    status, out, err = tokret("index", photos, index, f"--checkpoint={checkpoint}")
    assert status == 0 and "recall" not in out
    assert out.endswith(f"next: tokret query PHOTO {index}, or tokret serve {index}\n")
    status, out, err = tokret("index", index)
    assert status == 2 and "photos: is missing" in err
    status, out, err = tokret("index", index, "--to=qdrant-egde")
    assert status == 2 and "--to=qdrant-egde is no engine; did you mean" in err
    status, out, err = tokret("index", index, "--to=qdrant-edge")
    assert status == 0 and "qdrant-edge: 9 photos (9 added, 0 deleted)" in out
    assert "qdrant-edge: recall@9 of 1.000, in " in out
    query = sorted(photos.rglob("*.jpg"))[0]
    answers = {}
    for engine in ("", "exact", "qdrant-edge"):
        status, out, _ = tokret("query", query, index, f"--engine={engine}")
        assert status == 0
        answers[engine] = out.splitlines()[:9]
    assert answers[""] == answers["exact"] == answers["qdrant-edge"]
    query.unlink()
    status, out, _ = tokret("index", photos, index)
    assert status == 0 and "qdrant-edge: 8 photos (0 added, 1 deleted)" in out
    assert "next:" not in out
    status, out, _ = tokret("index", index, "--to=exact")
    assert status == 0 and "is searched exactly" in out
    status, _, err = tokret("query", photos / "sea" / "1.jpg", index, "--engine=nope")
    assert status == 2 and "--engine=nope is no engine" in err
