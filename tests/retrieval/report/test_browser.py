"""The page as a person sees it: headless Chromium, controlled over its own pipe."""

import contextlib
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tokret.retrieval.report.writer import ReportLimits, write_report

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
LOGGED = (
    "Runtime.exceptionThrown",
    "Runtime.consoleAPICalled",
    "Log.entryAdded",
    "Page.javascriptDialogOpening",
)
# Chromium reads from the one and writes to the other.
ONTO_3_AND_4 = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]
os.dup2(ends[0], 3)
os.dup2(ends[1], 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """One tab, which keeps every event."""

    def __init__(self, send, receive):
        self._send, self._receive, self._rest = send, receive, b""
        self._number, self._session, self.events = 0, None, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._send, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != self._number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def _read(self):
        while b"\0" not in self._rest:
            more = os.read(self._receive, 1 << 16)
            assert more, "the browser ended"
            self._rest += more
        line, self._rest = self._rest.split(b"\0", 1)
        return json.loads(line)

    def open(self, url):
        self.call("Page.navigate", url=url)
        while not self.events_of("Page.loadEventFired"):
            self.events.append(self._read())

    def evaluate(self, expression):
        options = {"returnByValue": True, "awaitPromise": True}
        answer = self.call("Runtime.evaluate", expression=expression, **options)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key, code, **more):
        for kind in ("keyDown", "keyUp"):
            pressed = {"key": key, "windowsVirtualKeyCode": code, **more}
            self.call("Input.dispatchKeyEvent", type=kind, **pressed)

    def events_of(self, *methods):
        return [event for event in self.events if event.get("method") in methods]


@pytest.fixture
def browser(tmp_path):
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed")
    to_us, theirs = os.pipe()
    ours, to_them = os.pipe()
    command = [
        *(sys.executable, "-c", ONTO_3_AND_4, str(ours), str(theirs)),
        *(program, "--headless", "--disable-gpu", "--remote-debugging-pipe"),
        *("--no-first-run", f"--user-data-dir={tmp_path / 'profile'}"),
        "--host-resolver-rules=MAP * ~NOTFOUND",
        *(["--no-sandbox"] if os.geteuid() == 0 else []),
    ]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, pass_fds=(ours, theirs), **silent)
    os.close(ours)
    os.close(theirs)
    try:
        yield Browser(to_them, to_us)
    finally:
        os.close(to_them)
        os.close(to_us)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_person_can_use_the_page(browser, tmp_path, landmarks, summary, token_maps):
    path = tmp_path / "report.html"
    limits = ReportLimits(queries=20, side=32)
    write_report(path, landmarks, summary(landmarks), token_maps, limits)
    rising = [f"q{i}" for i in np.argsort(landmarks.precision, kind="stable")]
    rising.remove("q4")  # without positives
    order = "[...document.querySelectorAll('article')].map((card) => card.id)"
    pressed = (
        "[...document.querySelectorAll('[aria-pressed=true]')].map((b) => b.innerText)"
    )
    browser.open(f"{path.as_uri()}#worst")
    assert browser.evaluate(order) == rising
    assert browser.evaluate(pressed) == ["Worst first"]
    shown = "[...document.images].every((i) => i.naturalWidth > 0)"
    loaded = "Promise.all([...document.images].map((i) => i.decode()))"
    assert browser.evaluate(f"{loaded}.then(() => {shown})")
    # The style is applied: the policy knows it.
    assert browser.evaluate(
        "getComputedStyle(document.querySelector('.top')).display"
    ) == ("grid")

    browser.evaluate("document.querySelector('[data-order=best]').click()")
    assert browser.evaluate(order) == rising[::-1]
    assert browser.evaluate("location.hash") == "#best"
    browser.evaluate("document.querySelector('[data-order=given]').click()")
    assert browser.evaluate(order) == sorted(rising, key=lambda name: int(name[1:]))

    # By keyboard: a photo opens with its maps, and closes again.
    browser.evaluate("document.querySelector('#q7 .top button').focus()")
    browser.press("Enter", 13, text="\r")
    assert browser.evaluate("document.getElementById('viewer').open")
    assert browser.evaluate("document.querySelectorAll('#v-looks figure').length") == 5
    item = int(landmarks.best([7], 1)[1][0, 0])
    title = browser.evaluate("document.getElementById('v-title').textContent")
    assert title == landmarks.database[item].name
    browser.press("Escape", 27)
    assert not browser.evaluate("document.getElementById('viewer').open")

    browser.evaluate(
        "{const f = document.getElementById('find'); f.value = 'Q1';"
        "f.dispatchEvent(new Event('input'))}"
    )
    seen = f"{order}.filter((id) => !document.getElementById(id).hidden)"
    assert browser.evaluate(seen) == ["q1", "q10", "q11"]

    phone = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    browser.call("Emulation.setDeviceMetricsOverride", **phone)
    assert browser.evaluate("document.documentElement.scrollWidth") <= 360

    assert not browser.events_of(*LOGGED)
    requests = browser.events_of("Network.requestWillBeSent")
    urls = [event["params"]["request"]["url"] for event in requests]
    assert {url.split(":")[0] for url in urls} <= {"file", "data"}
    assert {url for url in urls if url.startswith("file:")} == {path.as_uri()}
