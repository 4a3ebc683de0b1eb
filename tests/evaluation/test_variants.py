from pathlib import Path

import msgspec
import numpy as np
import pytest

from tokret.data.ground_truth import from_revisited
from tokret.errors import UserError
from tokret.evaluation.revisited_benchmark import RevisitedBenchmark
from tokret.evaluation.variants import make_variants
from tokret.retrieval import metrics
from tokret.retrieval.compression import costs
from tokret.retrieval.store.record import Images, Record
from tokret.retrieval.store.writing import write_store
from tokret.retrieval.tables import cost_lines, table_rows

OURS = Record({"head": "token"}, "0" * 64, {"scales": [1.0]}, Images((), (), (), ()))


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """Queries, a database, a ground truth, and a file of distractors."""
    draw = np.random.default_rng(0)
    rows = draw.normal(size=(362, 16)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    gnd = [
        {"easy": [0, 1], "hard": [2], "junk": [3]},
        {"easy": [5], "hard": [], "junk": []},
    ]
    names = [f"i{n}" for n in range(40)]
    mapping = {"imlist": names, "qimlist": ["a", "b"], "gnd": gnd}
    path = tmp_path_factory.mktemp("files") / "distractors.npy"
    np.save(path, rows[42:])
    return rows[:2], rows[2:42], from_revisited(mapping, "small"), path


def measure(case, variants):
    queries, database, truth, _ = case
    benchmark = RevisitedBenchmark(truth)
    return variants.measure(
        queries, database, lambda *search: benchmark.numbers(benchmark.ranks(*search))
    )


def test_distractors_follow_the_database(case):
    queries, database, truth, path = case
    variants = make_variants(path, None, None, None).checked(None, 16)
    found = measure(case, variants)["distractors"]
    whole = np.concatenate([database, np.load(path)])
    assert found["numbers"] == metrics.evaluate(queries, whole, truth).means
    assert found["numbers"] != metrics.evaluate(queries, database, truth).means
    assert found["count"] == 320


def test_each_form_is_measured_with_its_costs(case, monkeypatch):
    monkeypatch.setattr(costs, "ALONE", 2)
    variants = make_variants(case[3], ["int8", "bf16", "int8"], None, None)
    found = measure(case, variants)
    assert list(found["compressed"]) == ["int8", "bf16"]
    for form, size in (("int8", 16), ("bf16", 32)):
        cost = found["compressed"][form]
        assert cost["image_bytes"] == size and cost["all_bytes"] >= 360 * size
        plain = found["distractors"]["numbers"]["medium"]["mAP"]
        assert cost["numbers"]["medium"]["mAP"] == pytest.approx(plain, abs=0.1)
    rows = table_rows("small", {"token": found})
    assert [row.system for row in rows[1:]] == [
        *("token + 320", "token + 320, int8", "token + 320, bf16")
    ]
    assert "16 bytes an image" in cost_lines({"token": found})[0]


def test_whitening_is_learned_saved_and_read(case, tmp_path):
    queries, database, _, path = case
    learned = make_variants(None, None, path, 8).checked(None, 16)
    white = learned.whiten(database)
    assert white.shape == (40, 8)
    assert learned.environment()["whitening"] == {"dims": 8, "learned_from": str(path)}
    learned.save(tmp_path / "w.safetensors")
    again = make_variants(None, None, tmp_path / "w.safetensors", None)
    np.testing.assert_array_equal(again.checked(None).whiten(database), white)
    with pytest.raises(UserError, match="for 16 dimensions"):
        again.whiten(white)
    # Distractors, too, are whitened.
    both = make_variants(path, None, tmp_path / "w.safetensors", None)
    found = both.measure(
        both.whiten(queries), white, lambda by, among, *_: {"shape": among.shape}
    )
    assert found["distractors"]["numbers"]["shape"] == (360, 8)


def test_without_variants_nothing_is_measured(case):
    none = make_variants(None, None, None, None)
    assert not none and measure(case, none.checked(OURS)) == {}
    assert none.environment() == {} and none.whiten(case[1]) is case[1]


def test_descriptors_of_another_model_are_refused(case, tmp_path):
    images = Images(("x",), ((9, 9),), (None,), ("0" * 64,))
    theirs = msgspec.structs.replace(OURS, weights="1" * 64, images=images)
    with write_store(tmp_path / "store", theirs) as writer:
        writer.write(np.array([0], np.int32), np.ones((1, 16), np.float32), {})
        writer.finish()
    for paths in (
        (tmp_path / "store", None, None),
        (None, None, tmp_path / "store"),
    ):
        variants = make_variants(*paths, whiten_dims=None)
        with pytest.raises(
            UserError, match="another model than the database .*weights"
        ):
            variants.checked(OURS)
        with pytest.raises(UserError, match="16 dimensions and 7"):
            variants.checked(None, 7)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None, ["zip"], None, None), "zip"),
        ((Path("/nowhere.npy"), None, None, None), "/nowhere.npy"),
        ((None, None, Path("/nowhere.safetensors"), None), "/nowhere"),
        ((None, None, None, 8), "whiten_dims"),
        ((None, None, Path("w.safetensors"), 8), "whiten_dims"),
    ],
)
def test_arguments_that_cannot_be(arguments, message):
    with pytest.raises(UserError, match=message):
        make_variants(*arguments)


def test_more_dimensions_than_the_descriptors_have(case):
    with pytest.raises(UserError, match="whiten_dims=17 must be 1 to 16"):
        make_variants(None, None, case[3], 17).checked(None, 16)
