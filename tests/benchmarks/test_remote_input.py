import pytest

from benchmarks import remote_input
from benchmarks.remote_input import BUCKET, DISK, WINDOWS
from tokret.data.preparing import tfds_layout
from tokret.errors import UserError


def test_waiting_is_measured_in_all_cases(memory, monkeypatch):
    monkeypatch.setattr(tfds_layout, "PHOTOS_PER_SHARD", 32)
    result = remote_input.run(f"{memory.url}/x", photos=256, rate=1e5, turns=1)
    assert result["shards"] == 8
    for name in ("first", "waiting"):
        assert set(result[name]) == {DISK, BUCKET, WINDOWS}
    assert all(0 <= fraction <= 1 for (fraction,) in result["waiting"].values())
    assert len(remote_input.report(result).splitlines()) == 6


def test_wrong_arguments_are_refused(memory):
    with pytest.raises(UserError, match="url: "):
        remote_input.run("ftp://x/y", photos=256, rate=1.0, turns=1)
    with pytest.raises(UserError, match="photos is 3"):
        remote_input.run(memory.url, photos=3, rate=1.0, turns=1)
