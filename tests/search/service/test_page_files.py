"""The page's files: whole, and without anything that its policy would block."""

import re

import pytest

from tokret.search.service.page import render_login, render_page, static_files


@pytest.fixture(scope="module")
def page():
    return render_page("my <b>photos</b>", "Token", 1234, read_only=False)


def test_every_name_is_escaped(page):
    assert "my &lt;b&gt;photos" in page
    assert "1,234 photos" in page
    assert "1 photo<" in render_page("", "", 1, read_only=False)


def test_a_page_to_read_only_has_nothing_that_changes_the_index(page):
    changing = ('id="add"', 'id="open-add"', 'id="confirm"', 'data-act="remove"')
    read_only = render_page("", "", 2, read_only=True)
    for words in changing:
        assert words in page
        assert words not in read_only


def test_a_model_without_maps_has_no_buttons_for_them(page, client):
    assert 'id="tokens"' in page and "Attention" in page
    plain = client.get("/").text  # of GeM
    assert 'id="tokens"' not in plain and "Attention" not in plain
    assert "a tiny trunk with GeM, 8 dimensions" in plain


def test_nothing_is_inline(page):
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", page)
    assert re.findall(r"<script[^>]*>[^<]", page) == []


def test_everything_that_the_page_loads_is_there(page):
    files = static_files()
    loaded = set(re.findall(r'"static/([^"]+)"', page))
    assert loaded <= set(files)
    scripts = {name: data.decode() for name, (data, _) in files.items()}
    scripts = {name: text for name, text in scripts.items() if name.endswith(".js")}
    imported = {
        name for text in scripts.values() for name in re.findall(r'"\./(.+?)"', text)
    }
    assert imported | {"main.js", "login.js"} == set(scripts)


def test_every_element_that_a_script_names_is_in_the_page(page):
    page += render_login(refused=False)
    ids = set(re.findall(r'\bid="([^"]+)"', page))
    for name, (data, _) in static_files().items():
        if name.endswith(".js"):
            named = set(re.findall(r'(?:byId|copyOf)\("([^"]+)"\)', data.decode()))
            assert named <= ids, name


def test_icons_are_in_the_page(page):
    drawn = set(re.findall(r'href="#(icon-[a-z]+)"', page))
    assert drawn <= set(re.findall(r'symbol id="(icon-[a-z]+)"', page))
