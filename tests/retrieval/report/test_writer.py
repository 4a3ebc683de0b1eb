import base64
import dataclasses
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from tokret.data.views import View
from tokret.errors import UserError
from tokret.retrieval.answers import ProtocolRanks
from tokret.retrieval.report.writer import (
    ReportLimits,
    choose_queries,
    selection_text,
    write_report,
)

LIMITS = ReportLimits(queries=20, side=32)


class Page(HTMLParser):
    """Every element of a page with its attributes; scripts' data apart."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.data, self._inside = [], {}, None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.elements.append((tag, given))
        self._inside = tag, given.get("id")

    handle_startendtag = handle_starttag

    def handle_data(self, data):
        if self._inside and self._inside[0] in ("script", "style"):
            self.data[self._inside] = self.data.get(self._inside, "") + data


def written(tmp_path, answers, summary, token_maps=None, limits=LIMITS):
    path = tmp_path / "report.html"
    write_report(path, answers, summary(answers), token_maps, limits)
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["landmarks", "labelled"])
def test_names_of_others_stay_text_and_nothing_else_is_named(
    request, tmp_path, summary, token_maps, kind
):
    text = written(tmp_path, request.getfixturevalue(kind), summary, token_maps)
    page = Page(text)
    tags = [tag for tag, _ in page.elements]
    assert tags.count("script") == 2 and tags.count("style") == 1
    assert set(page.data) == {("script", "photos"), ("script", None), ("style", None)}
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")], tag
        assert "style" not in attributes
        for name in ("src", "href", "srcset", "xlink:href", "action", "data", "poster"):
            value = attributes.get(name, "#")
            assert value == "data:," or value.startswith("#"), (tag, name, value)
    outside = page.data["script", None] + page.data["style", None]
    assert not re.search(r"https?:|//\w|@import|url\(|fetch|XMLHttp", outside)
    policy = next(a["content"] for _, a in page.elements if "http-equiv" in a)
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert "evil.example" in text  # the names are there, escaped


def test_photos_are_encoded_again_and_each_appears_once(
    tmp_path, landmarks, summary, token_maps
):
    page = Page(written(tmp_path, landmarks, summary, token_maps))
    photos = json.loads(page.data["script", "photos"])
    used = {a["data-photo"] for _, a in page.elements if "data-photo" in a}
    assert used == {str(i) for i in range(len(photos))}
    contents = [photo["photo"] for photo in photos]
    assert len(photos) <= 11 + 30 and len(contents) == len(photos)
    for photo in photos:
        encoded = base64.b64decode(photo["photo"])
        assert b"SECRET" not in encoded
        with Image.open(io.BytesIO(encoded)) as image:
            assert image.format == "WEBP" and max(image.size) == 32
        shades = [Image.open(io.BytesIO(base64.b64decode(x))) for x in photo["maps"]]
        assert [shade.size for shade in shades] == [(2, 3)] * 4
        alpha = [np.asarray(shade.convert("RGBA"))[..., 3] for shade in shades]
        assert (alpha[0] == 0).all() and (alpha[1] > 200).all()
        assert photo["fractions"] == [100, 0, 0, 0]


def test_cards_agree_with_the_metrics(tmp_path, landmarks, summary):
    text = written(tmp_path, landmarks, summary)
    cards = re.findall(r"<article.*?</article>", text, re.S)
    numbers = [int(re.search(r'id="q(\d+)"', card)[1]) for card in cards]
    assert numbers == [q for q in range(12) if q != 4]
    assert "1 without positives are skipped" in text
    _, items = landmarks.best(numbers, 10)
    for card, query, found in zip(cards, numbers, items.tolist(), strict=True):
        precision = landmarks.precision[query]
        assert f'data-precision="{precision:.6f}"' in card
        assert f"<b>{100 * precision:.1f}</b>" in card
        verdicts = [landmarks.verdict(query, item) for item in found]
        assert re.findall(r'<li class="(\w+)">', card) == verdicts
        assert re.findall(r'class="words">(\w+)<', card) == verdicts
        ranks = landmarks.protocols["medium"].ranks[query]
        shown = [
            int(place)
            for kind, place in zip(
                verdicts, re.findall(r'class="rank">(\d*)<', card), strict=True
            )
            if kind == "hit"
        ]
        np.testing.assert_array_equal(shown, ranks[: len(shown)] + 1)
        miss = next(rank for rank in range(31) if rank not in ranks)
        assert f"First miss at rank {miss + 1}." in card
        # The box of 60 x 40 and 40 x 60 photos.
        place = 'x="16.67" y="12.50"' if query % 2 == 0 else 'x="25.00" y="8.33"'
        assert card.count(f"<rect {place}") == 2


def test_a_query_with_nothing_but_positives_has_no_miss(tmp_path, labelled, summary):
    everything = [np.arange(8)] * 9
    protocol = ProtocolRanks(np.ones(9), everything)
    perfect = dataclasses.replace(
        labelled,
        protocols={"all": protocol},
        positives=[{"": each} for each in everything],
    )
    text = written(tmp_path, perfect, summary)
    assert text.count("No miss.") == 9 and "First miss" not in text


def test_the_page_of_a_head_without_maps(tmp_path, landmarks, summary):
    for token_maps in (None, lambda views: None):
        text = written(tmp_path, landmarks, summary, token_maps)
        assert "<i>token</i> has no maps" in text and 'data-example="' not in text


def test_the_file_keeps_to_its_size(tmp_path, landmarks, summary, token_maps):
    whole = len(written(tmp_path, landmarks, summary, token_maps).encode())
    limits = ReportLimits(queries=20, side=32, max_bytes=int(0.7 * whole))
    text = written(tmp_path, landmarks, summary, token_maps, limits)
    assert len(text.encode()) <= limits.max_bytes
    shown = text.count("<article")
    assert 1 < shown < 11 and f"{shown} of 11 queries" in text
    photos = json.loads(Page(text).data["script", "photos"])
    assert len(photos) <= shown + 30
    few = written(
        tmp_path, landmarks, summary, token_maps, ReportLimits(queries=3, side=32)
    )
    assert few.count("<article") == 3


def test_a_report_that_fails_leaves_the_old_one(tmp_path, landmarks, summary):
    path = tmp_path / "report.html"
    path.write_text("old")
    bad = View(b"no photo", "bad.jpg", None, 64)

    broken = dataclasses.replace(landmarks, queries=[bad] * 12)
    with pytest.raises(UserError, match=r"bad\.jpg"):
        write_report(path, broken, summary(landmarks), None, LIMITS)
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(UserError, match="No such file"):
        nowhere = tmp_path / "none" / "report.html"
        write_report(nowhere, landmarks, summary(landmarks), None, LIMITS)


def test_the_worst_and_the_best_are_chosen_and_others_between():
    precision = np.linspace(0, 1, 100)
    precision[50] = np.nan
    chosen = choose_queries(precision, 20)
    assert chosen == sorted(set(chosen)) and len(chosen) == 20 and 50 not in chosen
    assert chosen[:5] == [0, 1, 2, 3, 4] and chosen[-5:] == [95, 96, 97, 98, 99]
    assert choose_queries(precision, 99) == [*range(50), *range(51, 100)]
    assert selection_text(precision, 20).startswith("20 of 99 queries: the 5 worst")
    assert all(len(choose_queries(precision, n)) == n for n in (1, 2, 3, 5))


@pytest.mark.parametrize("wrong", [{"queries": 0}, {"side": 4}, {"side": 5000}])
def test_limits_that_cannot_be(wrong):
    with pytest.raises(UserError, match="report_"):
        ReportLimits(**({"queries": 5, "side": 100} | wrong))
