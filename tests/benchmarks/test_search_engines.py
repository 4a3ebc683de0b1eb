import json

import numpy as np
import pytest

from benchmarks import search_engines
from benchmarks.__main__ import engines


def test_an_engine_is_compared_with_numpy(tmp_path, capsys):
    engines(rows=300, queries=6, top=10, json=tmp_path / "out.json")
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["all_recall"] == found["tenth_recall"] == 1.0
    assert found["bytes_per_row"] > 4 * 1024 and found["all_processor_ratio"] > 0
    row = "| qdrant-edge, 300 clustered | 1.000 | "
    assert row in capsys.readouterr().out


@pytest.mark.parametrize("kind", search_engines.KINDS)
def test_descriptors_have_length_one(kind):
    rows = search_engines.KINDS[kind](100, 64)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
