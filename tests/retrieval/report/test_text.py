import json
from html.parser import HTMLParser

from hypothesis import given, settings
from hypothesis import strategies as st

from tokret.retrieval.report import text

MANY = settings(derandomize=True, deadline=None, max_examples=200)
HOSTILE = st.text(max_size=40) | st.text(
    "<>&\"'/!-scriptSCRIPT=\u2028\u202e\0", max_size=20
)


class Parsed(HTMLParser):
    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.tags, self.said, self.values = [], "", []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.values += attributes

    def handle_data(self, data):
        self.said += data


@MANY
@given(HOSTILE)
def test_escaped_text_is_only_text(name):
    safe = text.escaped(name)
    page = Parsed(f'<p title="{safe}">{safe}</p>')
    assert page.tags == ["p"]
    assert page.values == [("title", text.readable(name))]
    assert page.said == text.readable(name)
    safe.encode()


@MANY
@given(st.recursive(HOSTILE | st.integers(), st.lists, max_leaves=4))
def test_json_cannot_end_its_script(value):
    data = text.script_json(value)
    assert json.loads(data) == value
    assert data.isascii() and not set("<>&") & set(data)


def test_what_cannot_be_printed_is_replaced_and_what_is_long_is_cut():
    assert text.readable("a\u202eb\0c\ud800") == "a\ufffdb\ufffdc\ufffd"
    assert len(text.readable("x" * 5000)) == text.LONGEST + 1


def test_numbers_in_words():
    numbers = [text.percent(x) for x in (0.5, 1.0, float("nan"), None)]
    assert numbers == ["50.00", "100.00", "\u2013", "\u2013"]
    assert text.size_in_words(1023.0) == "1,023 bytes"
    assert text.size_in_words(4096.0) == "4.0 KiB"
    assert text.size_in_words(3.0 * 2**40) == "3,072.0 GiB"
