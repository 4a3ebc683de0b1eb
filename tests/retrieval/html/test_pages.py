import json
import sys
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokret.retrieval.html import pages

MANY = settings(derandomize=True, deadline=None, max_examples=200)
HOSTILE = st.text(max_size=40) | st.text(
    "<>&\"'/!-scriptSCRIPT=\u2028\u202e\0", max_size=20
)


class Parsed(HTMLParser):
    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.tags, self.text, self.values, self.script = [], "", [], ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "p":
            self.values += attributes

    def handle_data(self, data):
        if self.tags[-1:] == ["p"]:
            self.text += data
        if self.tags[-1:] == ["script"]:
            self.script += data


@pytest.fixture(scope="module")
def render(tmp_path_factory):
    """Renders a page of a package with one template and a style, but no script."""
    folder = tmp_path_factory.mktemp("packages") / "one_page"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "one.css").write_text("p { color: red; }")
    (folder / "one.html").write_text(
        '{% extends "base.html" %}{% block body %}'
        '<p title="{{ name }}">{{ name }}</p><script>{{ data|tojson }}</script>'
        "{% endblock %}"
    )
    sys.path.insert(0, str(folder.parent))
    yield lambda **values: pages.render("one_page", "one", **values)
    sys.path.remove(str(folder.parent))


@MANY
@given(HOSTILE)
def test_escaped_text_is_only_text(render, name):
    text = render(name=name, data=0)
    page = Parsed(text)
    assert page.tags.count("p") == page.tags.count("script") == 1
    # Parsers replace line ends of other systems; `readable` has replaced them before.
    assert page.values == [("title", pages.readable(name))]
    assert page.text == pages.readable(name)
    text.encode()


@MANY
@given(st.recursive(HOSTILE | st.integers(), st.lists, max_leaves=4))
def test_json_cannot_end_its_script(render, value):
    data = Parsed(render(name="", data=value)).script
    assert json.loads(data) == value
    assert data.isascii() and not set("<>&") & set(data)


def test_the_policy_allows_the_page_s_own_style_and_no_script(render):
    page = render(name="", data=0)
    assert "style-src 'sha256-" in page and "script-src" not in page
    assert "p { color: red; }" in page and "default-src 'none'" in page


def test_what_cannot_be_printed_is_replaced_and_what_is_long_is_cut():
    assert pages.readable("a\u202eb\0c\ud800") == "a\ufffdb\ufffdc\ufffd"
    assert len(pages.readable("x" * 5000)) == pages.MAX_LENGTH + 1


def test_numbers_as_text():
    numbers = [pages.percent(x) for x in (0.5, 1.0, float("nan"), None)]
    assert numbers == ["50.00", "100.00", "\u2013", "\u2013"]
    assert pages.thousands(1234567) == "1,234,567"
    assert pages.thousands(3072.04, 1) == "3,072.0"
