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
