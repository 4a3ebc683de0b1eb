"""What the formats put out beside the hits themselves."""

import json
from pathlib import Path

import numpy as np

from tokret.search.hits import Hit, Member
from tokret.search.queries import SearchResults
from tokret.search.result_formats import (
    groups_to_csv,
    groups_to_json,
    to_csv,
    to_json,
)
from tokret.search.service.answers import Result

ABOVE = float(np.nextafter(np.float32(1), np.float32(2)))


def test_scores_are_within_their_range_whatever_was_rounded():
    hits = [Hit("a.jpg", ABOVE), Hit("b.jpg", 0.1), Hit("c.jpg", -ABOVE)]
    several = [SearchResults(Path("/root"), hits, [], 3, 0.0, 0.0, "q.jpg")]
    found = [hit["score"] for hit in json.loads(to_json(several))[0]["hits"]]
    assert found == [1.0, 0.1, -1.0]
    rows = [line.split(",") for line in to_csv(several)][1:]
    assert [row[2] for row in rows] == ["1.0", "0.1", "-1.0"]
    groups = [[Member("a.jpg", "0" * 16, "", ABOVE)]]
    (group,) = json.loads(groups_to_json(groups, Path("/root"), {}))["groups"]
    assert group[0]["score"] == 1.0 and group[0]["path"] == "/root/a.jpg"
    assert [*groups_to_csv(groups, Path("/root"))][1].startswith("1,1.0,")
    names = dict.fromkeys(("id", "name", "label", "folder"), "")
    assert Result(score=ABOVE, **names).score == 1.0
