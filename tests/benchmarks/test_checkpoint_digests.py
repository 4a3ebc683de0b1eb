import pytest

from benchmarks import checkpoint_digests
from benchmarks.checkpoint_digests import ALONE, DIGESTS, FLIPS
from tokret.errors import UserError


def test_saves_are_timed_and_all_flips_noticed():
    result = checkpoint_digests.run(mib=4, turns=1)
    for name in ("blocked", "saved", "loaded"):
        assert set(result[name]) == {ALONE, DIGESTS}
        assert all(len(times) == 1 for times in result[name].values())
    flips = result["flips"]
    assert flips["noticed"] == flips["flipped"] > FLIPS
    *_, last = checkpoint_digests.report(result).splitlines()
    assert last == f"{flips['flipped']} of {flips['flipped']} flipped bits noticed"


def test_wrong_numbers_are_refused():
    with pytest.raises(UserError, match="mib is 3; it must be at least 4"):
        checkpoint_digests.run(mib=3, turns=1)
    with pytest.raises(UserError, match="turns is 0"):
        checkpoint_digests.run(mib=4, turns=0)
