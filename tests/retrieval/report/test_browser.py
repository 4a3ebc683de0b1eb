"""The page as a person sees it, in headless Chromium."""

import numpy as np

from tokret.retrieval.report.writer import ReportLimits, write_report


def test_a_person_can_use_the_page(tabs, tmp_path, landmarks, summary, token_maps):
    path = tmp_path / "report.html"
    limits = ReportLimits(queries=20, side=32)
    write_report(path, landmarks, summary(landmarks), token_maps, limits)
    rising = [f"q{i}" for i in np.argsort(landmarks.precision, kind="stable")]
    rising.remove("q4")  # without positives
    page = tabs.open()
    page.goto(f"{path.as_uri()}#worst")

    def order():
        return page.eval_on_selector_all(
            "article", "cards => cards.map((card) => card.id)"
        )

    assert order() == rising
    assert page.locator("[aria-pressed=true]").all_inner_texts() == ["Worst first"]
    assert page.evaluate(
        "Promise.all([...document.images].map((image) => image.decode()))"
        ".then(() => [...document.images].every((image) => image.naturalWidth > 0))"
    )
    # The style is applied: the policy knows it.
    shown = "element => getComputedStyle(element).display"
    assert page.locator(".top").first.evaluate(shown) == "grid"

    page.locator("[data-order=best]").click()
    assert order() == rising[::-1]
    assert page.url.endswith("#best")
    page.locator("[data-order=given]").click()
    assert order() == sorted(rising, key=lambda name: int(name[1:]))

    # By keyboard: a photo opens with its maps, and closes again.
    page.locator("#q7 .top button").first.focus()
    page.keyboard.press("Enter")
    viewer = page.get_by_role("dialog")
    assert viewer.is_visible()
    assert viewer.locator("#v-looks figure").count() == 5
    item = int(landmarks.best([7], 1)[1][0, 0])
    assert viewer.locator("#v-title").text_content() == landmarks.database[item].name
    page.keyboard.press("Escape")
    assert viewer.is_hidden()

    page.locator("#find").fill("Q1")
    visible = page.locator("article:visible")
    assert [card.get_attribute("id") for card in visible.all()] == ["q1", "q10", "q11"]

    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360

    assert {url.split(":")[0] for url in tabs.requested} <= {"file", "data"}
    assert {url.split("#")[0] for url in tabs.requested if url[:5] == "file:"} == {
        path.as_uri()
    }
