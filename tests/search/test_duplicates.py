import msgspec
import numpy as np
import pytest

from tokret.search.duplicate_groups import duplicate_groups
from tokret.search.duplicate_threshold import DEFAULT, Threshold, learn_threshold
from tokret.search.indexing import update_index
from tokret.search.near_duplicates import FILE, known_threshold, search_distinct
from tokret.search.searcher import Filters, Hit, Searcher


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def library(photos, dims, spread, seed=0):
    """Photos around as many centres as they are tenfold, of some dimension."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((photos // 10, dims))
    noise = rng.standard_normal((photos, dims))
    return unit(np.repeat(centres, 10, axis=0) + spread * noise)


def similarities(rows):
    scores = rows @ rows.T
    return scores[np.triu_indices(len(rows), 1)]


@pytest.mark.parametrize("dims", [6, 12])
def test_different_photos_rarely_reach_the_threshold(dims):
    chance = []
    for seed in range(5):
        rows = library(2000, dims, 1.0, seed)
        learned = learn_threshold([rows], "w", seed)
        chance.append(int((similarities(rows) >= learned.score).sum()))
        assert learned.dimension == pytest.approx(dims - 1, rel=0.25)
    # Two pairs are expected of each library.
    assert 0 < sum(chance) < 5 * 6


def test_near_duplicates_reach_it_and_do_not_move_it():
    rows = library(2000, 12, 1.0)
    noise = np.random.default_rng(1).standard_normal((400, 12))
    copies = unit(rows[:400] + 0.003 * noise)
    alone = learn_threshold([rows], "w")
    learned = learn_threshold([rows[:1500], rows[1500:], copies], "w")
    own = (rows[:400] * copies).sum(axis=1)
    assert (own >= learned.score).mean() > 0.95
    assert abs(learned.score - alone.score) < 0.01
    assert learned.fraction == pytest.approx(800 / 2400, abs=0.06)
    assert learned.photos == 2400
    assert msgspec.json.decode(msgspec.json.encode(learned), type=Threshold) == learned


def test_few_photos_teach_nothing():
    learned = learn_threshold([library(100, 8, 1.0)], "w")
    assert learned.score == DEFAULT and learned.dimension == 0


def test_a_threshold_suits_its_model_and_its_size():
    learned = Threshold(0.9, 1000, "w", 0.1, 8.0)
    assert learned.suits(1100, "w") and learned.suits(900, "w")
    assert not learned.suits(1101, "w") and not learned.suits(1000, "other")


@pytest.fixture
def searcher(load, photos, tmp_path):
    """Of nine photos, one of them twice, and one with other metadata."""
    content = (photos / "sea" / "1.jpg").read_bytes()
    (photos / "copy.jpg").write_bytes(content)
    (photos / "tagged.jpg").write_bytes(content + b"tag")
    (photos / "twin.jpg").write_bytes((photos / "sea" / "5.jpg").read_bytes())
    update_index(photos, tmp_path / "index", load)
    return Searcher(tmp_path / "index", load)


def test_groups_are_those_of_all_pairs(searcher, monkeypatch):
    groups = duplicate_groups(searcher, 0.9999)
    named = [[member.name for member in group] for group in groups]
    assert named == [["copy.jpg", "sea/1.jpg", "tagged.jpg"], ["sea/5.jpg", "twin.jpg"]]
    assert all(m.score == pytest.approx(1, abs=1e-5) for g in groups for m in g)
    rows = np.concatenate([*searcher.tiles()])
    for score in (0.9, 0.5):  # components of the graph of all pairs
        near = rows @ rows.T >= score
        for _ in range(len(near)):
            near = near @ near
        ids = [f"{number:016x}" for number in searcher.used_ids().tolist()]
        expected = {frozenset(np.array(ids)[row].tolist()) for row in near}
        found = duplicate_groups(searcher, score)
        grouped = {frozenset(member.id for member in group) for group in found}
        assert {ids for ids in expected if len(ids) > 1} <= grouped


def test_the_threshold_is_recorded_and_learned_again(searcher, monkeypatch):
    first = known_threshold(searcher)
    path = searcher.index / FILE
    assert path.exists() and first.photos == 10
    monkeypatch.setattr("tokret.search.near_duplicates.learn_threshold", None)
    assert known_threshold(searcher) == first
    monkeypatch.undo()
    path.write_text("damaged")
    assert known_threshold(searcher) == first
    ids = [found for found, _ in searcher.browse(Filters(), 0, 2)[0]]
    searcher.remove(ids)
    assert known_threshold(searcher).photos == 8


def test_hidden_near_duplicates_are_counted(searcher):
    (shown,) = searcher.search(searcher.descriptors([id_of(searcher)]), 12)
    hidden = search_distinct(
        searcher,
        searcher.descriptors([id_of(searcher)])[0],
        12,
        Filters(),
        (),
        0.9999,
    )
    assert hidden[0].name == "copy.jpg" and hidden[0].near_duplicates == 2
    assert sum(1 + hit.near_duplicates for hit in hidden) == len(shown) == 12


def test_photos_of_other_indexes_are_not_compared(searcher, monkeypatch):
    (own,) = searcher.search(searcher.descriptors([id_of(searcher)]), 3)
    other = [Hit("there/a.jpg", 0.5, "0" * 16), Hit("there/b.jpg", 0.5, "1" * 16)]
    found = [[*own, *other]]
    monkeypatch.setattr(searcher, "search", lambda *arguments: found)
    query = searcher.descriptors([id_of(searcher)])[0]
    hits = search_distinct(searcher, query, 12, Filters(), (), 0.9999)
    assert hits == [own[0]._replace(near_duplicates=2), *other]


def id_of(searcher):
    return searcher.browse(Filters(), 0, 1)[0][0][0]
