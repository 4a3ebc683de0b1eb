import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokret.retrieval import leave_one_out
from tokret.retrieval.compression.database import compress

FEW = settings(derandomize=True, deadline=None, max_examples=25)


def ints(*values):
    return np.array(values, np.int32)


def test_hand_cases_of_average_precision():
    assert leave_one_out.plain_average_precision(ints(5, 0, 2)) == pytest.approx(
        (1 + 2 / 3 + 3 / 6) / 3, abs=1e-15
    )
    # Of five positives two can be among the first two places, and one is.
    assert leave_one_out.average_precision_at(ints(1, 5, 6, 7, 8), 2) == 0.25
    assert leave_one_out.average_precision_at(ints(0), 10) == 1.0
    assert leave_one_out.average_precision_at(ints(10), 10) == 0.0


def slow_leave_one_out(descriptors, labels):
    """The obvious form: a sort for each query, precision at each hit."""
    scores = descriptors @ descriptors.T
    average, found, cut = [], {1: [], 5: [], 10: []}, {1: [], 5: [], 10: []}
    for query in range(len(labels)):
        order = np.argsort(-scores[query], kind="stable")
        hits = labels[order[order != query]] == labels[query]
        if hits.any():
            precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
            average.append(precision[hits].mean())
            for k in found:
                found[k].append(hits[:k].any())
                cut[k].append((precision * hits)[:k].sum() / min(k, hits.sum()))
    numbers = {"mAP": np.mean(average)}
    for k in found:
        numbers |= {f"recall@{k}": np.mean(found[k]), f"mAP@{k}": np.mean(cut[k])}
    return numbers


@settings(FEW, max_examples=10)
@given(
    seed=st.integers(0, 10**6),
    classes=st.sampled_from([9, 120]),
    block=st.sampled_from([1, 8192]),
)
def test_leave_one_out_is_the_slow_form(seed, classes, block):
    draw = np.random.default_rng(seed)
    descriptors = draw.integers(-1, 2, (200, 4)).astype(np.float32)
    labels = draw.integers(0, classes, 200)
    result = leave_one_out.leave_one_out(descriptors, labels, block=block)
    assert result == pytest.approx(slow_leave_one_out(descriptors, labels), abs=1e-12)
    assert result == leave_one_out.leave_one_out(descriptors, labels, block=129)


def test_leave_one_out_takes_names_and_skips_lone_items():
    descriptors = np.array([[1, 0], [1, 0], [0, 1], [0.5, 0]], np.float32)
    labels = np.array(["milk", "milk", "pear", "lime"])
    found = leave_one_out.leave_one_out(descriptors, labels)
    assert set(found.values()) == {1.0} and len(found) == 7
    lone = leave_one_out.leave_one_out(descriptors, np.array(["a", "b", "c", "d"]))
    assert np.isnan(list(lone.values())).all()


def test_items_may_have_other_descriptors_as_queries():
    descriptors = np.eye(4, dtype=np.float32)
    labels = np.array([0, 0, 1, 1])
    # Each is near the other of its class, or one of the other class.
    for order, expected in (([1, 0, 3, 2], 1.0), ([2, 3, 0, 1], 0.0)):
        queries = descriptors[order]
        found = leave_one_out.leave_one_out(descriptors, labels, queries=queries)
        assert found["recall@1"] == expected
    same = leave_one_out.leave_one_out(descriptors, labels, queries=descriptors)
    assert same == leave_one_out.leave_one_out(descriptors, labels)


def test_items_that_are_no_queries_are_still_ranked():
    rng = np.random.default_rng(0)
    labels = np.array([0, 0, 0, 1, 1, 1])
    descriptors = rng.normal(size=(6, 4)).astype(np.float32)
    descriptors[1] = np.nan
    items = [0, 2, 3, 4, 5]
    ranks = leave_one_out.leave_one_out_ranks(descriptors, labels, query_items=items)
    assert sorted(ranks) == items
    # Last of the five others.
    assert ranks[0].max() == ranks[2].max() == 4
    found = leave_one_out.leave_one_out(descriptors, labels, query_items=items)
    assert found == leave_one_out.leave_one_out_metrics(ranks)


@pytest.mark.parametrize("form", ["int8", "bf16"])
def test_compressed_items_are_queried_by_descriptors(form):
    draw = np.random.default_rng(0)
    labels = np.arange(60) // 4
    centres = draw.normal(size=(15, 32))
    rows = (centres[labels] + 0.8 * draw.normal(size=(60, 32))).astype(np.float32)
    few = compress(rows, form)
    plain = leave_one_out.leave_one_out(rows, labels)
    found = leave_one_out.leave_one_out(
        few.codes, labels, queries=rows, encode_queries=few.encode_queries
    )
    assert found["mAP"] == pytest.approx(plain["mAP"], abs=0.02)
    assert 0.5 < found["mAP"] < 1
