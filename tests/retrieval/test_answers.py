import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tokret.retrieval.answers import first_miss

FEW = settings(derandomize=True, deadline=None, max_examples=50)


@FEW
@given(st.sets(st.integers(0, 12), min_size=1))
def test_the_first_miss_is_the_first_rank_without_a_positive(ranks):
    expected = next(rank for rank in range(14) if rank not in ranks)
    assert first_miss(np.array(sorted(ranks))) == expected
