"""Pages in the system's Chromium, through Playwright; a fixture for several folders.

Every test ends with a check that the page logged nothing: no errors of scripts, no
requests that failed, nothing that its policy (Content-Security-Policy) blocked.
"""

import contextlib
import os
import re
import shutil

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
SIZES = {
    "wide": {"viewport": {"width": 1400, "height": 900}},
    "phone": {
        "viewport": {"width": 390, "height": 844},
        "has_touch": True,
        "is_mobile": True,
    },
}
# No name is resolved: pages load nothing but what they are given.
ARGUMENTS = ["--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"]
MOST_SECONDS = 120  # to wait for anything, as on a machine that is busy
ROOT_ARGUMENTS = ["--no-sandbox"]


def find_browser():
    """The path of the system's Chromium; None if there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@pytest.fixture(scope="module")
def chromium():
    """The browser. Of a module: while it is open, no event loop can be started."""
    program = find_browser()
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed")
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=MOST_SECONDS * 1000)
    arguments = ARGUMENTS + (ROOT_ARGUMENTS if os.geteuid() == 0 else [])
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        yield browser
        browser.close()


class Tabs:
    """Opens tabs and keeps what they log."""

    def __init__(self, chromium, closing):
        self._chromium, self._closing = chromium, closing
        self.logged, self.requested, self.expected = [], [], []

    def open(self, size="wide", **options):
        """A tab of its own browser context."""
        context = self._chromium.new_context(**SIZES[size], **options)
        self._closing.callback(context.close)
        context.set_default_timeout(MOST_SECONDS * 1000)
        return self.watch(context.new_page())

    def watch(self, page):
        """Keeps what a tab logs from now on."""
        page.on("console", lambda message: self.logged.append(message.text))
        page.on("pageerror", lambda error: self.logged.append(str(error)))
        page.on("request", lambda request: self.requested.append(request.url))
        return page

    def expect(self, words):
        """The log may have lines with these words, which the browser itself writes."""
        self.expected.append(words)

    def unexpected(self):
        return [
            line
            for line in self.logged
            if not any(re.search(words, line) for words in self.expected)
        ]


@pytest.fixture
def tabs(chromium):
    """Opens tabs, which must log nothing that the test does not expect."""
    with contextlib.ExitStack() as closing:
        opened = Tabs(chromium, closing)
        yield opened
    unexpected = opened.unexpected()
    assert not unexpected, unexpected
