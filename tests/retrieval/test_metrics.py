import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokret.data import ground_truth
from tokret.data.revisited.builder import OXFORD_LANDMARKS
from tokret.data.revisited.text_ground_truth import query_names, to_revisited
from tokret.retrieval import metrics
from tokret.retrieval.exact_search.ranks import count_by_sorting

SHARED = Path(__file__).parents[2].parent / "shared"
GOLDEN = Path(os.environ.get("TOKRET_GOLDEN", SHARED / "golden"))
LEVELS = {"E": "easy", "M": "medium", "H": "hard"}
NONE = np.array([], np.int32)
FEW = settings(derandomize=True, deadline=None, max_examples=25)


def ints(*values):
    return np.array(values, np.int32)


def ranks_of_scores(scores, labelled):
    own = np.take_along_axis(scores, np.maximum(labelled, 0), axis=1)
    ranks = count_by_sorting(scores, own, labelled, 0, 0, scores.shape[1])
    return np.where(labelled >= 0, ranks, np.int32(-1))


def test_hand_cases_of_average_precision():
    assert metrics.average_precision(ints(0, 2, 5), NONE) == pytest.approx(
        0.677778, abs=5e-7
    )
    ranks = metrics.without_junk(ints(0, 2, 6, 10, 20), ints(1, 8, 9, 30))
    assert ranks.tolist() == [0, 1, 5, 7, 17]
    assert metrics.average_precision(ints(0, 1, 2), NONE) == 1.0
    # One positive at rank 1: nothing right before it, one of two right at it.
    assert metrics.average_precision(ints(1), NONE) == 0.25


def test_precision_is_cut_at_the_last_positive():
    assert metrics.precision_at(ints(0, 1), NONE, 10) == 1.0
    assert metrics.precision_at(ints(0, 3), NONE, 10) == 0.5
    assert metrics.precision_at(ints(0, 3), ints(1, 2), 10) == 1.0
    assert metrics.precision_at(ints(4, 30), NONE, 5) == 0.2


@FEW
@given(st.permutations(range(40)), st.integers(1, 10), st.integers(0, 10))
def test_average_precision_is_that_of_the_list_without_junk(order, positives, junk):
    right, passed = set(range(positives)), set(range(positives, positives + junk))
    place = np.argsort(order).astype(np.int32)
    kept = [item for item in order if item not in passed]
    precision, before, total = 1.0, 1.0, 0.0
    found = 0
    for seen, item in enumerate(kept, start=1):
        found += item in right
        before, precision = precision, found / seen
        total += (item in right) * (before + precision) / 2
    assert metrics.average_precision(
        place[:positives], place[positives : positives + junk]
    ) == pytest.approx(total / positives, abs=1e-12)


def small_truth():
    return ground_truth.from_revisited(
        {
            "imlist": [f"i{n}" for n in range(6)],
            "qimlist": ["a", "b"],
            "gnd": [
                {"easy": [0], "hard": [2], "junk": [1]},
                {"easy": [], "hard": [5], "junk": []},
            ],
        },
        "small",
    )


def test_evaluate_leaves_out_queries_without_positives_and_allows_distractors():
    database = np.zeros((9, 2), np.float32)
    database[:, 0] = [6, 5, 4, 3, 2, 1, 7, 0, 0]
    database[5, 1] = 1
    queries = np.eye(2, dtype=np.float32)
    result = metrics.evaluate(queries, database, small_truth(), block=128)
    # Query a ranks 6 (a distractor), 0, 1, 2: easy 0 is second.
    assert result.average_precision["easy"][0] == 0.25
    assert np.isnan(result.average_precision["easy"][1])
    assert result.means["easy"] == {
        "mAP": 0.25,
        "mP@1": 0.0,
        "mP@5": 0.5,
        "mP@10": 0.5,
    }
    # Hard: easy 0 and junk 1 are ignored; b has its one positive first.
    assert result.average_precision["hard"].tolist() == [0.25, 1.0]
    assert result.means["hard"]["mP@1"] == 0.5


def test_a_protocol_without_queries_is_nan():
    truth = ground_truth.from_revisited(
        {
            "imlist": ["i"],
            "qimlist": ["a"],
            "gnd": [{"easy": [], "hard": [0], "junk": []}],
        },
        "small",
    )
    levels = metrics.evaluate_ranks(ints(0)[None], truth).means
    assert np.isnan(list(levels["easy"].values())).all()
    assert levels["hard"]["mAP"] == 1.0


def official_rankings(truth):
    """The two rankings that the official evaluation was run on, [N, 70]."""
    n = len(truth.images)
    draw = np.random.RandomState(0)  # noqa: NPY002 the golden file names this generator
    yield "random_seed0", np.stack([draw.permutation(n) for _ in range(70)], 1)
    scores = np.random.RandomState(1).rand(n, 70)  # noqa: NPY002 as above
    for lists, bonus in ((truth.easy, 1.0), (truth.hard, 0.5), (truth.junk, 0.7)):
        for query, items in enumerate(lists):
            scores[items, query] += bonus
    yield "noisy_oracle_seed1", np.argsort(-scores, axis=0, kind="stable")


def test_the_official_numbers_on_revisited_oxford():
    folder = SHARED / "revisitop"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here: the annotations are not tokret's own")
    golden = json.loads((folder / "golden_map.json").read_text())
    truth = ground_truth.read_ground_truth(folder / "gnd_roxford5k.pkl")
    for name, order in official_rankings(truth):
        expected = golden[f"roxford5k/{name}"]
        raw = np.ascontiguousarray(order, "<i4").tobytes()
        assert hashlib.sha256(raw).hexdigest() == expected["ranks_sha256"]
        # Item order[r, q] scores -r for query q: integers, exact in float32.
        database = np.empty(order.shape, np.float32)
        np.put_along_axis(database, order, -np.arange(len(order))[:, None], axis=0)
        queries = np.eye(70, dtype=np.float32)
        result = metrics.evaluate(queries, database, truth)
        in_blocks = metrics.evaluate(queries, database, truth, block=700)
        assert in_blocks.means == result.means
        for short, level in LEVELS.items():
            values = expected["levels"][short]
            got = result.means[level]
            want = dict(
                zip(
                    ("mAP", "mP@1", "mP@5", "mP@10"),
                    [values["mAP"], *values["mP"]],
                    strict=True,
                )
            )
            assert got == pytest.approx(want, abs=1e-9), (name, level)


def test_the_golden_case_with_empty_lists():
    if not GOLDEN.is_dir():
        pytest.skip(f"{GOLDEN} is not here; TOKRET_GOLDEN names another folder")
    golden = np.load(GOLDEN / "map.npz")
    scores = golden["scores"].T
    lists = json.loads((GOLDEN / "map_gnd.json").read_text())
    truth = ground_truth.from_revisited(
        {
            "imlist": [f"i{n}" for n in range(scores.shape[1])],
            "qimlist": [f"q{n}" for n in range(len(lists))],
            "gnd": lists,
        },
        "golden",
    )
    ranks = ranks_of_scores(scores, metrics.labelled_items(truth))
    result = metrics.evaluate_ranks(ranks, truth)
    for level, numbers in result.means.items():
        assert numbers["mAP"] == pytest.approx(float(golden[f"{level}_map"]), abs=1e-9)
        got = [numbers[f"mP@{k}"] for k in (1, 5, 10)]
        np.testing.assert_allclose(got, golden[f"{level}_mp"], rtol=0, atol=1e-9)
        each = golden[f"{level}_aps"]
        each = np.where(np.isinf(each), np.nan, each)
        np.testing.assert_allclose(
            result.average_precision[level], each, rtol=0, atol=1e-9
        )


def computed_of_2007(good, junk, ranked):
    """Average precision as the benchmark of 2007 computes it, walking down the list."""
    recall, precision, total, hits, seen = 0.0, 1.0, 0.0, 0, 0
    for item in ranked:
        if item in junk:
            continue
        hits += item in good
        seen += 1
        new_recall, new_precision = hits / len(good), hits / seen
        total += (new_recall - recall) * (precision + new_precision) / 2
        recall, precision = new_recall, new_precision
    return total


def test_medium_is_the_protocol_of_2007_on_oxford():
    folder = SHARED / "oxford5k_gt"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here: the annotations are not tokret's own")
    texts = {path.name: path.read_text() for path in folder.glob("*.txt")}
    photos = [f"other_{i}" for i in range(400)]
    mapping = to_revisited(texts, OXFORD_LANDMARKS, photos)
    truth = ground_truth.from_revisited(mapping, "oxford5k")
    assert len(truth.queries) == 55 and truth.boxes.shape == (55, 4)
    total, draw = len(truth.images), np.random.default_rng(0)
    scores = draw.random((55, total))
    for query, items in enumerate(truth.easy):
        scores[query, items] += 0.4
    order = np.argsort(-scores, axis=1)
    ranks = ranks_of_scores(scores, metrics.labelled_items(truth))
    found = metrics.evaluate_ranks(ranks, truth)
    for query, name in enumerate(query_names(OXFORD_LANDMARKS)):
        lists = {
            kind: texts[f"{name}_{kind}.txt"].split() for kind in ("good", "ok", "junk")
        }
        ranked = [truth.images[item] for item in order[query]]
        expected = computed_of_2007(
            {*lists["good"], *lists["ok"]}, set(lists["junk"]), ranked
        )
        assert found.average_precision["medium"][query] == pytest.approx(
            expected, abs=1e-9
        )
