import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokret.data.ground_truth import from_revisited
from tokret.data.views import View
from tokret.retrieval import leave_one_out as loo
from tokret.retrieval import metrics
from tokret.retrieval.answers import (
    Costs,
    by_ground_truth,
    by_labels,
    first_miss,
    verdict,
)
from tokret.retrieval.exact_search.ranks import count_ranks
from tokret.retrieval.exact_search.top_k import top_k

COSTS = Costs(1.0, 8, 0.1, 4, 16)
FEW = settings(derandomize=True, deadline=None, max_examples=50)


@FEW
@given(st.sets(st.integers(0, 12), min_size=1))
def test_the_first_miss_is_the_first_rank_without_a_positive(ranks):
    expected = next(rank for rank in range(14) if rank not in ranks)
    assert first_miss(np.array(sorted(ranks))) == expected


@pytest.fixture
def revisited():
    rng = np.random.default_rng(3)
    queries = rng.standard_normal((3, 4)).astype(np.float32)
    database = rng.standard_normal((12, 4)).astype(np.float32)
    names = [f"im{i}" for i in range(12)]
    gnd = [
        {"easy": [0, 5], "hard": [2], "junk": [1, 7, 8]},
        {"easy": [], "hard": [9, 4], "junk": []},
        {"easy": [], "hard": [], "junk": [3]},
    ]
    truth = {"imlist": names, "qimlist": ["a", "b", "c"], "gnd": gnd}
    return from_revisited(truth, "t"), queries, database


def test_ranks_and_verdicts_agree_with_the_metrics(revisited):
    truth, queries, database = revisited
    ranks = count_ranks(queries, database, metrics.labelled_items(truth))
    found = metrics.evaluate(queries, database, truth)
    answers = by_ground_truth(
        truth,
        ranks,
        queries=[],
        database=[View(b"", f"im{i}", None, 9) for i in range(12)],
        best=lambda some, k: top_k(queries[list(some)], database, k),
        costs=COSTS,
    )
    none = np.array([], np.int32)
    for name, protocol in answers.protocols.items():
        for query, rank in enumerate(protocol.ranks):
            expected = found.average_precision[name][query]
            if len(rank):
                assert metrics.average_precision(rank, none) == expected
            else:
                assert np.isnan(expected)
    # The whole ranking, read off: junk takes no place.
    _, items = answers.best([0, 1], 12)
    for query in (0, 1):
        row = [answers.verdict(query, item) for item in items[query].tolist()]
        counted = [each for each in row if each != "junk"]
        assert answers.num_ranked[query] == len(counted)
        hits = [place for place, each in enumerate(counted) if each == "hit"]
        np.testing.assert_array_equal(hits, answers.protocols["medium"].ranks[query])
        kinds = answers.positives[query].values()
        assert sorted(np.concatenate(list(kinds)).tolist()) == hits
    assert verdict(truth, 0, 7) == "junk" and verdict(truth, 1, 7) == "miss"


@pytest.mark.parametrize("twins", [False, True])
def test_a_labelled_photo_does_not_retrieve_itself(twins):
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((8, 4)).astype(np.float32)
    if twins:  # equal scores: the query may be behind its twin
        rows[:] = rows[0]
    labels = np.array([0, 1, 0, 1, 2, 0, 1, 1])
    stored = [View(b"", f"photo {i}", None, 9) for i in range(8)]
    crop = View(b"", "photo 0", (0.0, 0.0, 1.0, 1.0), 9)
    answers = by_labels(
        labels,
        loo.leave_one_out_ranks(rows, labels),
        names=lambda label: "xyz"[label],
        best=lambda items, k: top_k(rows[list(items)], rows, k),
        database=stored,
        query_views={0: crop},
        costs=COSTS,
    )
    items_of = [0, 1, 2, 3, 5, 6, 7]
    assert list(answers.queries) == [crop, *(stored[i] for i in items_of[1:])]
    assert answers.classes[:2] == ["x", "y"] and answers.class_of(4) == "z"
    assert answers.num_ranked == [7] * 7
    numbers = loo.leave_one_out(rows, labels)
    assert answers.precision.mean() == pytest.approx(numbers["mAP"])
    for count in (1, 3, 7, 20):
        _, items = answers.best(range(7), count)
        assert items.shape == (7, min(count, 7))
        for query, row in enumerate(items.tolist()):
            assert items_of[query] not in row
            hits = [i for i, x in enumerate(row) if answers.verdict(query, x) == "hit"]
            ranks = answers.protocols["all"].ranks[query]
            np.testing.assert_array_equal(hits, ranks[ranks < len(row)])
