import pytest

from tokret.comparison.table import Figure, figure, figures, markdown


def measured(mAP, recall, after):
    before = {"all": {"mAP": mAP, "recall@1": recall}}
    reranked = {"reranked": {"numbers": {"all": {"mAP": after}}}}
    return {
        "three": before,
        "expansion": before | reranked,
        "reciprocal": before | reranked,
    }


def test_means_and_deviations_in_percent():
    assert figure([0.5]) == Figure(50.0, 0.0)
    mean, deviation = figure([0.7, 0.72, 0.74])
    assert mean == pytest.approx(72) and deviation == pytest.approx(2)
    assert str(figure([0.7, 0.72, 0.74])) == "72.0 ± 2.0"


def test_a_row_a_head_the_best_first():
    rows = {
        "gem": figures([measured(0.6, 0.9, 0.7), measured(0.62, 0.9, 0.7)]),
        "token": figures([measured(0.8, 0.95, 0.85)]),
    }
    assert rows["token"]["mAP, k-reciprocal"].mean == pytest.approx(85)
    lines = markdown(rows).splitlines()
    assert lines[0].startswith("| head | mAP | recall@1 |")
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| token", "| gem"]
    assert "| 61.0 ± 1.4 | 90.0 ± 0.0 |" in lines[3]
