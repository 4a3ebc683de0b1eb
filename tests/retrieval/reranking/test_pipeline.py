"""Pipelines as text, checked and run; their rankings measured."""

import inspect

import msgspec
import numpy as np
import pytest

from tokret.data import ground_truth
from tokret.errors import UserError
from tokret.retrieval import leave_one_out, metrics
from tokret.retrieval.exact_search.ranks import count_ranks
from tokret.retrieval.reranking import pipeline
from tokret.retrieval.reranking.expansion import expand_queries
from tokret.retrieval.reranking.ranking import Ranking, place_reranked


def test_a_pipeline_is_parsed_in_order_with_defaults():
    steps = pipeline.parse_pipeline(
        "dba:n=5,weighting=equal, aqe , k_reciprocal:lambda=0.5"
    )
    assert [step.name for step in steps] == ["dba", "aqe", "k_reciprocal"]
    assert steps[0].arguments == {"n": 5, "weighting": "equal"}
    assert steps[1].arguments == {"n": 10, "alpha": 3.0}
    assert steps[2].arguments == {"top": 500, "k1": 20, "k2": 6, "lambda": 0.5}


def test_every_argument_of_every_method_has_limits():
    for name, method in pipeline.METHODS.items():
        (step,) = pipeline.parse_pipeline(name)
        parameters = inspect.signature(method).parameters
        assert set(parameters) >= {"ranking"} and step.reorders == (
            "progress" in parameters
        )
        for key, value in step.arguments.items():
            if not isinstance(value, str):
                kind = parameters["lambda_" if key == "lambda" else key].annotation
                assert msgspec.convert(str(value), kind, strict=False) == value
                for wrong in ("-1", "1000001", "nan", "x", "9" * 30):
                    match = f"{name}:{key}={wrong}: {key} must be a .*number in .[01],"
                    with pytest.raises(UserError, match=match):
                        pipeline.parse_pipeline(f"{name}:{key}={wrong}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "aqe, dba, diffusion"),
        ("aqe,", "must be one of"),
        ("qe", "'qe'"),
        ("n=3,aqe", "'n=3'"),
        ("aqe:n", "'n'"),
        ("aqe:n=", "'n='"),
        ("aqe:m=3", "rerank=aqe:m"),
        ("aqe:n=3,n=4", "twice"),
        ("aqe:n=0", "aqe:n=0: n must be a whole number in [1, 1000000]"),
        ("aqe:n=2.5", "aqe:n=2.5"),
        ("aqe:alpha=nan", "alpha=nan"),
        ("aqe:n=5,alpha=inf", "alpha=inf"),
        ("aqe:ranking=1", "rerank=aqe:ranking"),
        ("dba:weighting=best", "equal, rank"),
        ("diffusion:alpha=1", "in [0, 0.9999]"),
        ("k_reciprocal:lambda=1.5", "a number in [0, 1]"),
        ("superglobal,aqe", "superglobal must be the last"),
        ("diffusion,k_reciprocal", "diffusion must be the last"),
    ],
)
def test_invalid_pipelines_are_refused(text, message):
    with pytest.raises(UserError) as refusal:
        pipeline.parse_pipeline(text)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_database_augmentation_is_refused_in_leave_one_out():
    pipeline.check_leave_one_out(pipeline.parse_pipeline("aqe,diffusion"))
    with pytest.raises(UserError, match="pipeline without dba"):
        pipeline.check_leave_one_out(pipeline.parse_pipeline("dba,aqe"))


def test_descriptors_must_have_length_one_or_be_zeros(units):
    rows = units(0, 6).astype(np.float32)
    rows[2] = 0
    pipeline.check_rankable(Ranking(rows[:2], rows))
    rows[4] *= 2
    with pytest.raises(UserError, match="row 4 of the database has length 2"):
        pipeline.check_rankable(Ranking(rows[:2], rows))


def test_the_order_of_steps_counts_and_arguments_arrive(units):
    database = units(1, 40).astype(np.float32)
    start = Ranking(units(2, 3).astype(np.float32), database)

    def after(text):
        ranking = start
        for step in pipeline.parse_pipeline(text):
            ranking = pipeline.run_step(step, ranking)
        return ranking

    first, second = after("dba:n=4,aqe:n=4"), after("aqe:n=4,dba:n=4")
    assert np.abs(first.queries - second.queries).max() > 1e-3
    np.testing.assert_array_equal(
        after("aqe:n=2,alpha=0.5").queries, expand_queries(start, 2, 0.5).queries
    )
    done = []
    (step,) = pipeline.parse_pipeline("k_reciprocal:top=7,k1=3,k2=2,lambda=1")
    found = pipeline.run_step(step, start, done.append)
    assert sum(done) == 3
    # With lambda = 1 the plain distance decides: the order of products.
    order = np.argsort(-(start.queries @ database.T), axis=1, kind="stable")
    np.testing.assert_array_equal(found.reranked, order[:, :7])


def test_a_reordered_ranking_is_measured_by_its_ground_truth():
    truth = ground_truth.from_revisited(
        {
            "imlist": [f"i{n}" for n in range(5)],
            "qimlist": ["a"],
            "gnd": [{"easy": [2], "hard": [4], "junk": [0]}],
        },
        "small",
    )
    database = np.array([[5], [4], [3], [2], [1]], np.float32)
    query = np.ones((1, 1), np.float32)
    reranked = np.array([[2, 0, 1]], np.int32)
    labelled = metrics.labelled_items(truth)
    ranks = count_ranks(query, database, labelled)

    def measured(reranked):
        return metrics.evaluate_ranks(place_reranked(ranks, labelled, reranked), truth)

    before, after = metrics.evaluate(query, database, truth), measured(reranked)
    # Without the junk, i2 was second and becomes first; i4 stays fourth.
    assert before.means["easy"]["mAP"] == 0.25
    assert after.means["easy"]["mAP"] == 1.0
    assert after.means["hard"]["mAP"] == before.means["hard"]["mAP"]
    assert measured(np.array([[0, 1, 2]], np.int32)).means == before.means


def test_a_reordered_ranking_is_measured_in_leave_one_out():
    database = np.array([[4], [3], [2], [1]], np.float32)
    labels = np.array(["a", "b", "a", "b"])
    # Each ranks 0, 1, 2, 3 without itself. The re-ranking puts classmates first.
    reranked = np.array([[2, 1], [0, 2], [0, 1], [1, 0]], np.int32)
    found = leave_one_out.leave_one_out(database, labels, reranked=reranked)
    # Item 1 has item 3 behind 0 and 2, which alone were re-ranked.
    assert found["mAP"] == (1 + 1 / 3 + 1 + 1) / 4 and found["recall@1"] == 0.75
    plain = leave_one_out.leave_one_out(database, labels)
    kept = np.array([[1, 2], [0, 2], [0, 1], [0, 1]], np.int32)
    assert leave_one_out.leave_one_out(database, labels, reranked=kept) == plain
