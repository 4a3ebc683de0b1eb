"""Numbers before and after a re-ranking, and their table."""

import numpy as np
import pytest

from tokret.errors import UserError
from tokret.evaluation.benchmarks import evaluate
from tokret.evaluation.image_sets import DescriptorSet
from tokret.evaluation.leave_one_out_benchmark import LeaveOneOutBenchmark
from tokret.retrieval.reranking.pipeline import parse_pipeline
from tokret.retrieval.tables import cost_lines, table_rows, text_table


def measured(rows, labels, text):
    benchmark = LeaveOneOutBenchmark(labels.tolist(), ["a", "b"], {}, ())
    names = tuple(f"{i}.jpg" for i in range(len(rows)))
    found = {"database": DescriptorSet(names, rows, {})}
    return evaluate(benchmark, found, steps=parse_pipeline(text) if text else ())


@pytest.fixture(scope="module")
def arcs():
    """Two arcs of a circle: the end of one is nearer to the other than to its start."""
    angle = np.deg2rad([*range(0, 90, 5), *range(105, 195, 5)])
    rows = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    return rows, np.arange(36) // 18


def test_diffusion_follows_an_arc_that_products_leave(arcs):
    found = measured(*arcs, text="diffusion:k=3,kq=2,iterations=200,gamma=50")
    assert found["all"]["mAP"] < 0.97
    assert found["reranked"]["numbers"]["all"]["mAP"] == 1.0


def test_without_a_chain_the_numbers_are_the_search_s(arcs):
    assert set(measured(*arcs, text="")) == {"all"}


def test_a_table_has_a_row_before_and_a_row_after(arcs):
    found = measured(*arcs, text="aqe:n=2,k_reciprocal:k1=4,k2=2")
    numbers = {"angle": found}
    lines = text_table(table_rows("two", numbers)).splitlines()
    before, after = found["all"], found["reranked"]["numbers"]["all"]
    for line, name, values in (
        (lines[2], "angle ", before),
        (lines[3], "angle + aqe + k_reciprocal", after),
    ):
        assert line.startswith(name)
        assert line.split()[-5] == f"{100 * values['mAP']:.2f}"
    first, second = cost_lines(numbers)
    assert first.startswith("angle, aqe (n=2, alpha=3.0): ")
    assert second.startswith("angle, k_reciprocal (top=500, k1=4, k2=2, lambda=0.3)")


def test_lengths_other_than_one_are_refused(arcs):
    rows, labels = arcs
    with pytest.raises(UserError, match="length 2"):
        measured(2 * rows, labels, "aqe")
