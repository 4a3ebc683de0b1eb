import pytest

from benchmarks import soak_serve
from tokret.errors import UserError


@pytest.mark.slow
def test_a_service_under_faults_loses_nothing_and_does_not_grow(monkeypatch):
    monkeypatch.setattr(soak_serve, "RESTS", 11.0)  # idle connections are closed at 10
    result = soak_serve.run(queries=200, clients=8, kills=1, seed=0)
    assert result["wrong"] == [] and result["lost"] == [] and result["status"] == 0
    assert result["done"]["kill"] == 1 and result["done"]["query"] > 60
    before, after = result["before"], result["after"]
    # Caches, pools of threads and decoders are not full yet.
    assert after["files"] <= before["files"] + 8
    assert after["threads"] <= before["threads"] + 10
    assert after["processes"] <= before["processes"] + 2
    assert after["anonymous_bytes"] < before["anonymous_bytes"] + 200 * 2**20
    assert soak_serve.report(result).endswith("ended with status 0")


def test_too_few_queries_are_refused():
    with pytest.raises(UserError, match="queries=3 is less than"):
        soak_serve.run(queries=3, clients=8, kills=0, seed=0)
