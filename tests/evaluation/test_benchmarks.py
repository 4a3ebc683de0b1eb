"""Both kinds of benchmarks: numbers, bad photos, and what a report gets."""

import numpy as np
import pytest

from tokret.data.ground_truth import from_revisited
from tokret.data.views import View
from tokret.errors import UserError
from tokret.evaluation.benchmarks import evaluate
from tokret.evaluation.image_sets import DescriptorSet
from tokret.evaluation.leave_one_out_benchmark import LeaveOneOutBenchmark
from tokret.evaluation.revisited_benchmark import RevisitedBenchmark
from tokret.retrieval import leave_one_out, metrics
from tokret.retrieval.answers import Costs
from tokret.retrieval.reranking.pipeline import parse_pipeline

NAMES = [f"im{i}" for i in range(8)]
GND = [
    {"easy": [0, 5], "hard": [2], "junk": [1]},
    {"easy": [3], "hard": [4], "junk": []},
    {"easy": [], "hard": [6], "junk": [7]},
]
TRUTH = from_revisited({"imlist": NAMES, "qimlist": list("abc"), "gnd": GND}, "t")
LABELS = [0, 1, 0, 1, 2, 0, 1, 1]


def rows_of(count, seed=0):
    rows = np.random.default_rng(seed).standard_normal((count, 4)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def views_of(names):
    return [View(b"", name, None, 9) for name in names]


def found_of(bad=None):
    bad, queries = bad or {}, rows_of(3, seed=1)
    queries[list(bad)] = np.nan
    return {
        "query": DescriptorSet(tuple("abc"), queries, bad),
        "database": DescriptorSet(tuple(NAMES), rows_of(8), {}),
    }


def test_a_revisited_benchmark_is_measured_as_by_the_metrics():
    found, answers = found_of(), []
    images = {"query": views_of("abc"), "database": views_of(NAMES)}
    benchmark = RevisitedBenchmark(TRUTH, images)
    numbers = evaluate(benchmark, found, report=answers.append)
    q, db = found["query"].descriptors, found["database"].descriptors
    expected = metrics.evaluate(q, db, TRUTH)
    assert numbers == expected.means
    np.testing.assert_array_equal(
        answers[0].precision, expected.average_precision["medium"]
    )
    assert answers[0].queries[1].name == "b"


def test_bad_queries_are_an_error_or_skipped():
    found = found_of({1: "b is no photo"})
    benchmark = RevisitedBenchmark(TRUTH)
    with pytest.raises(UserError, match=r"1 of 3 queries .* first is b \(b is no"):
        evaluate(benchmark, found)
    numbers = evaluate(benchmark, found, skip_bad=True)
    assert numbers.pop("bad") == {"database": 0, "queries": 1}
    assert numbers["hard"] != evaluate(benchmark, found_of())["hard"]
    everything = found_of(dict.fromkeys(range(3), "bad"))
    with pytest.raises(UserError, match="no query has a descriptor; of the first: bad"):
        evaluate(benchmark, everything, skip_bad=True)


def test_labelled_photos_are_queries_to_each_other_by_their_boxes():
    rows, boxed = rows_of(8), rows_of(2, seed=5)
    database = DescriptorSet(tuple(NAMES), rows, {3: "im3 is no photo"})
    found = {"database": database, "query": DescriptorSet(("im0", "im5"), boxed, {})}
    images = {"database": views_of(NAMES), "query": views_of(["box 0", "box 5"])}
    benchmark = LeaveOneOutBenchmark(LABELS, list("xyz"), images, [0, 5])
    answers = []
    numbers = evaluate(benchmark, found, skip_bad=True, report=answers.append)
    queries = rows.copy()
    queries[[0, 5]] = boxed
    kept = [0, 1, 2, 4, 5, 6, 7]
    ranks = leave_one_out.leave_one_out_ranks(
        rows, np.array(LABELS), queries=queries, query_items=kept
    )
    assert numbers["all"] == leave_one_out.leave_one_out_metrics(ranks)
    assert numbers["bad"] == {"database": 1, "queries": 1}
    # Item 4 is alone in its class, and item 3 is bad.
    names = [view.name for view in answers[0].queries]
    assert names == ["box 0", "im1", "im2", "box 5", "im6", "im7"]
    assert answers[0].classes == ["x", "y", "x", "x", "y", "y"]


def test_labelled_photos_have_no_distractors_and_no_expanded_database():
    benchmark = LeaveOneOutBenchmark(LABELS, list("xyz"), {}, ())
    benchmark.check(parse_pipeline("aqe"), distractors=False)
    with pytest.raises(UserError, match="distractors: "):
        benchmark.check((), distractors=True)
    with pytest.raises(UserError, match="dba"):
        benchmark.check(parse_pipeline("dba,aqe"), distractors=False)


def answers_of(benchmark, queries, database):
    names = tuple(f"{i}.jpg" for i in range(len(database)))
    count = len(benchmark.images["query"])
    found = {
        "query": DescriptorSet(names[:count], queries[:count], {}),
        "database": DescriptorSet(names, database, {}),
    }
    benchmark = benchmark.select(found, skip_bad=False)
    ranks = benchmark.ranks(queries, database)
    return benchmark.answers(ranks, Costs(1.0, 8, 0.1, 4, 16))


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
    found = metrics.evaluate(queries, database, truth)
    images = {"query": views_of("abc"), "database": views_of(truth.images)}
    benchmark = RevisitedBenchmark(truth, images)
    answers = answers_of(benchmark, queries, database)
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
    assert benchmark.verdict(0, 7) == "junk" and benchmark.verdict(1, 7) == "miss"


@pytest.mark.parametrize("twins", [False, True])
def test_a_labelled_photo_does_not_retrieve_itself(twins):
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((8, 4)).astype(np.float32)
    if twins:  # equal scores: the query may be behind its twin
        rows[:] = rows[0]
    labels = np.array([0, 1, 0, 1, 2, 0, 1, 1])
    stored = views_of(f"photo {i}" for i in range(8))
    crop = View(b"", "photo 0", (0.0, 0.0, 1.0, 1.0), 9)
    images = {"database": stored, "query": [crop]}
    benchmark = LeaveOneOutBenchmark(labels.tolist(), list("xyz"), images, [0])
    answers = answers_of(benchmark, rows, rows)
    items_of = [0, 1, 2, 3, 5, 6, 7]
    assert list(answers.queries) == [crop, *(stored[i] for i in items_of[1:])]
    assert answers.classes[:2] == ["x", "y"] and answers.class_of(4) == "z"
    assert answers.num_ranked == [7] * 7
    numbers = leave_one_out.leave_one_out(rows, labels)
    assert answers.precision.mean() == pytest.approx(numbers["mAP"])
    for count in (1, 3, 7, 20):
        _, items = answers.best(range(7), count)
        assert items.shape == (7, min(count, 7))
        for query, row in enumerate(items.tolist()):
            assert items_of[query] not in row
            hits = [i for i, x in enumerate(row) if answers.verdict(query, x) == "hit"]
            ranks = answers.protocols["all"].ranks[query]
            np.testing.assert_array_equal(hits, ranks[ranks < len(row)])
