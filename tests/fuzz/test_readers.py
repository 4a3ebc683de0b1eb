"""No mutation of any file that tokret reads ends in anything but a `UserError`.

`python -m tests.fuzz` is the long form, by hand.
"""

import json
import random

import pytest

from tests.fuzz import mutations
from tests.fuzz.readers import READERS
from tests.fuzz.supervision import fuzz

MUTATIONS = 150
SLOW = 30


@pytest.fixture(scope="module")
def outcomes():
    """What the mutations of each reader ended in."""
    counts = {name: SLOW if r.slow else MUTATIONS for name, r in READERS.items()}
    return fuzz(counts, seed=0)


@pytest.mark.parametrize("name", READERS)
def test_mutations_are_refused_in_a_line_or_accepted(name, outcomes):
    assert outcomes[name].unexpected == {}
    assert outcomes[name].tried == outcomes[name].refused + outcomes[name].accepted


def test_most_readers_refuse_something(outcomes):
    # Those that start again without a damaged file refuse nothing.
    lenient = {"store's journal", "metrics.jsonl", "index of a tar"}
    assert {
        name for name, outcome in outcomes.items() if not outcome.refused
    } <= lenient


def test_every_key_of_a_json_file_is_changed():
    tree = {"a": {"b": [1, 2]}, "c": "d"}
    for number, changed in ((0, "a"), (1, "b"), (4, "c")):
        seen = set()
        for seed in range(40):
            found = mutations.mutate_tree(random.Random(seed), tree, number)
            seen.add(json.dumps(found, sort_keys=True))
        assert len(seen) > 10, changed
    assert tree == {"a": {"b": [1, 2]}, "c": "d"}


def test_the_same_numbers_give_the_same_mutation():
    data = json.dumps({"a": [1, 2.5], "b": "c" * 40}).encode()
    for mutate in (mutations.mutate_bytes, mutations.mutate_json):
        first = [mutate(random.Random(n), data, n) for n in range(50)]
        assert first == [mutate(random.Random(n), data, n) for n in range(50)]
        assert sum(content != data for content in first) > 40
