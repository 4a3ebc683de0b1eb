"""The page as a person sees it, in Chromium, with a service of a small index."""

import base64
import contextlib
import re
from urllib.parse import parse_qs, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.browser import SIZES
from tests.search.service.serving import serving
from tokret.data.views import photo_digest
from tokret.search.extractor import load_extractor
from tokret.search.indexing import update_index
from tokret.search.service.page import render_page

# What the browser itself logs of an answer that is an error.
FAILED = r"Failed to load resource: .*status of {}"
SECRET = "a-secret-of-18-chars"
both_sizes = pytest.mark.parametrize("size", SIZES)

# Dispatches an event with files, as a drop or a paste by a person does.
WITH_FILES = """
(element, [type, files]) => {
  const transfer = new DataTransfer();
  for (const [name, text] of files) {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    transfer.items.add(new File([bytes], name, { type: "image/jpeg" }));
  }
  const options = { bubbles: true, cancelable: true };
  const event = type === "paste"
    ? new ClipboardEvent(type, { ...options, clipboardData: transfer })
    : new DragEvent(type, { ...options, dataTransfer: transfer });
  element.dispatchEvent(event);
}
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory, jpeg):
    """Thirty photos in three folders, of which two are below a fourth."""
    root = tmp_path_factory.mktemp("photos") / "my photos"
    for i in range(30):
        folder = root / ("fridge/milk", "fridge/juice", "shelf")[i % 3]
        folder.mkdir(parents=True, exist_ok=True)
        size = ((240, 160), (160, 240), (200, 200))[i % 3]
        (folder / f"{i:02d}.jpg").write_bytes(jpeg(i, size))
    return root


@pytest.fixture(scope="module")
def extractor(token_checkpoint):
    return load_extractor(token_checkpoint)


@pytest.fixture(scope="module")
def index(root, extractor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("index") / "index"
    update_index(root, folder, lambda copy: extractor)
    return folder


@pytest.fixture(scope="module")
def url(index, extractor):
    with serving(index, extractor) as url:
        yield url


@pytest.fixture
def serve(index, extractor):
    """Returns a function that starts another service; it ends after the tabs."""
    with contextlib.ExitStack() as ending:
        yield lambda **options: ending.enter_context(
            serving(index, extractor, **options)
        )


@pytest.fixture(scope="module")
def photo(jpeg):
    """A photo of the person, 480 x 320 pixels."""
    return jpeg(100, (480, 320))


def send_files(page, kind, *contents, to="body"):
    files = [
        [f"{i}.jpg", base64.b64encode(data).decode()] for i, data in enumerate(contents)
    ]
    page.locator(to).evaluate(WITH_FILES, [kind, files])


def cards(page):
    return page.locator("#cards [data-id]")


def ids(page):
    return page.eval_on_selector_all(
        "#cards [data-id]", "c => c.map(c => c.dataset.id)"
    )


def settle(page):
    """Waits until the page has an answer."""
    expect(page.locator("#results")).to_have_attribute("aria-busy", "false")
    expect(page.locator(".skeleton")).to_have_count(0)


def link(page):
    """The query of the address: {name: values}."""
    return parse_qs(urlsplit(page.url).fragment)


def open_page(tabs, url, size="wide", **options):
    page = tabs.open(size, **options)
    page.goto(url)
    settle(page)
    return page


def search_with(page, *contents):
    send_files(page, "drop", *contents)
    expect(page.locator("#results-heading")).to_have_text("Results")
    settle(page)


def fits(page):
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@both_sizes
def test_drop_draw_a_box_click_and_go_back(tabs, url, size, photo):
    page = open_page(tabs, url, size)
    expect(page.locator("#num-photos")).to_have_text("30 photos")
    expect(cards(page)).to_have_count(24)
    browsed = ids(page)
    search_with(page, photo)
    assert link(page) == {"like": [photo_digest(photo)]}
    found = ids(page)
    assert len(found) == 24
    assert fits(page)

    area = page.locator("#stage").bounding_box()
    x, y, w, h = (area[key] for key in ("x", "y", "width", "height"))
    page.mouse.move(x + 0.2 * w, y + 0.25 * h)
    page.mouse.down()
    page.mouse.move(x + 0.5 * w, y + 0.5 * h)
    page.mouse.move(x + 0.8 * w, y + 0.75 * h)
    page.mouse.up()
    settle(page)
    box = [int(value) for value in link(page)["box"][0].split(",")]
    assert box == pytest.approx([96, 80, 384, 240], abs=4)
    boxed = ids(page)
    clicked = boxed[1]
    cards(page).nth(1).locator(".photo").click()
    settle(page)
    assert link(page) == {"like": [clicked]}
    assert clicked not in ids(page)

    page.go_back()
    expect(page.locator("#box")).to_be_visible()
    settle(page)
    assert ids(page) == boxed
    page.go_back()
    expect(page.locator("#box")).to_be_hidden()
    assert ids(page) == found
    page.go_back()
    expect(page.locator("#drop")).to_be_visible()
    settle(page)
    assert ids(page) == browsed
    page.go_forward()
    expect(page.locator("#stage")).to_be_visible()
    settle(page)
    assert ids(page) == found


def test_a_link_is_restored_in_a_new_tab(tabs, url, photo):
    page = open_page(tabs, url)
    search_with(page, photo)
    page.locator("#draw-box").click()
    settle(page)
    cards(page).nth(2).get_by_role("button", name="Not this one").click()
    settle(page)
    other = open_page(tabs, page.url)
    assert ids(other) == ids(page)
    expect(other.locator("#box")).to_be_visible()
    expect(other.locator("#negatives li")).to_have_count(1)


def test_paste(tabs, url, photo):
    page = open_page(tabs, url)
    send_files(page, "paste", photo)
    expect(page.locator("#results-heading")).to_have_text("Results")
    settle(page)
    assert link(page)["like"] == [photo_digest(photo)]


def test_choose_files_and_add_another(tabs, url, photo, jpeg):
    page = open_page(tabs, url)
    other = jpeg(101, (200, 300))
    for button, content in (("#choose", photo), ("#add-positive", other)):
        with page.expect_file_chooser() as chooser:
            page.locator(button).click()
        file = {"name": "a.jpg", "mimeType": "image/jpeg", "buffer": content}
        chooser.value.set_files([file])
        expect(page.locator("#stage")).to_be_visible()
        settle(page)
    expect(page.locator("#positives li")).to_have_count(2)
    assert link(page)["like"] == [photo_digest(photo), photo_digest(other)]


@both_sizes
def test_a_box_by_keyboard(tabs, url, size, photo):
    page = open_page(tabs, url, size)
    search_with(page, photo)
    page.locator("#draw-box").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#box")).to_be_focused()
    settle(page)
    assert link(page)["box"] == ["96,64,384,256"]
    for keys, box in (
        ("ArrowRight", "106,64,394,256"),
        ("ArrowUp", "106,58,394,250"),
        ("Shift+ArrowLeft", "106,58,384,250"),
        ("Shift+ArrowDown", "106,58,384,256"),
    ):
        page.keyboard.press(keys)
        settle(page)
        assert link(page)["box"] == [box], keys
    x0, y0, x1, y1 = map(int, box.split(","))
    words = re.compile(f"Box of {x1 - x0} by {y1 - y0} pixels|searched")
    expect(page.locator("#status")).to_contain_text(words)
    page.keyboard.press("Escape")
    expect(page.locator("#box")).to_be_hidden()
    expect(page.locator("#draw-box")).to_be_focused()
    settle(page)
    assert "box" not in link(page)


def test_a_box_by_touch(tabs, url, photo):
    page = open_page(tabs, url, "phone")
    search_with(page, photo)
    page.locator("#draw-box").tap()
    settle(page)
    area = page.locator("#stage").bounding_box()
    corner = page.locator("[data-corner=se]").bounding_box()
    x, y = corner["x"] + corner["width"] / 2, corner["y"] + corner["height"] / 2
    touch = page.context.new_cdp_session(page)
    for kind, dx in (("Start", 0), ("Move", -40), ("Move", -80), ("End", None)):
        points = [] if dx is None else [{"x": x + dx, "y": y + dx / 2}]
        options = {"type": f"touch{kind}", "touchPoints": points}
        touch.send("Input.dispatchTouchEvent", options)
    scale = 480 / area["width"]
    expect(page).not_to_have_url(re.compile("box=96,64,384,256"))
    settle(page)
    box = [int(value) for value in link(page)["box"][0].split(",")]
    assert box == pytest.approx(
        [96, 64, 384 - 80 * scale, 256 - 40 * scale], abs=3 * scale
    )


def test_more_like_this_and_not_this_one(tabs, url, photo):
    page = open_page(tabs, url)
    search_with(page, photo)
    start = ids(page)
    cards(page).nth(3).get_by_role("button", name="More like this").click()
    settle(page)
    assert link(page)["like"] == [photo_digest(photo), start[3]]
    expect(page.locator("#positives li")).to_have_count(2)
    unlike = ids(page)[0]
    cards(page).first.get_by_role("button", name="Not this one").click()
    settle(page)
    assert link(page)["unlike"] == [unlike]
    assert unlike not in ids(page)
    page.locator("#negatives").get_by_role("button").click()
    settle(page)
    page.locator("#positives").get_by_role("button").nth(1).click()
    settle(page)
    assert ids(page) == start
    page.locator("#new-search").click()
    expect(page.locator("#drop")).to_be_visible()
    settle(page)
    assert link(page) == {}


def test_more_pages(tabs, url, photo):
    page = open_page(tabs, url)
    page.locator("#more").click()
    expect(cards(page)).to_have_count(30)
    assert len(set(ids(page))) == 30
    expect(page.locator("#more")).to_be_hidden()
    expect(cards(page).nth(24).locator(".photo")).to_be_focused()


def test_filters(tabs, url, photo):
    page = open_page(tabs, url)
    search_with(page, photo)
    page.locator("#folders > summary").click()
    page.locator("#folders").get_by_label("fridge 20", exact=True).check()
    settle(page)
    assert link(page)["folder"] == ["fridge"]
    expect(cards(page)).to_have_count(20)
    page.locator("#labels > summary").click()
    page.locator("#labels").get_by_label("shelf").check()
    notice = page.get_by_role("alert").filter(has_text="No photo passes these filters")
    notice.get_by_role("button", name="Clear the filters").click()
    expect(cards(page)).to_have_count(24)
    assert link(page) == {"like": [photo_digest(photo)]}


def test_the_query_itself_and_near_duplicates(tabs, url, root):
    page = open_page(tabs, url)
    copy = next(root.glob("shelf/*.jpg")).read_bytes()
    search_with(page, copy)
    assert photo_digest(copy) not in ids(page)
    page.get_by_label("Do not show the query itself").uncheck()
    settle(page)
    assert ids(page)[0] == photo_digest(copy)
    with page.expect_request("**/search") as sent:
        page.get_by_label("Hide near-duplicates").check()
    assert re.search(r'"near_duplicates"\s+hide', sent.value.post_data)
    settle(page)
    assert link(page)["near_duplicates"] == ["hide"]


def test_where_tokens_look(tabs, url, photo):
    page = open_page(tabs, url)
    search_with(page, photo)
    before = page.locator("#cards").bounding_box()
    page.locator("#tokens").get_by_role("button", name="all").click()
    expect(page.locator("#query-attention")).to_have_class(re.compile("seen"))
    card = cards(page).nth(1)
    card.locator(".photo").hover()
    expect(card.locator("canvas")).to_have_class(re.compile("seen"))
    card.locator(".photo").focus()
    page.locator("#tokens").get_by_role("button", name="token 2").click()
    cards(page).nth(2).locator(".photo").focus()
    expect(cards(page).nth(2).locator("canvas")).to_have_class(re.compile("seen"))
    expect(card.locator("canvas")).not_to_have_class(re.compile("seen"))
    drawn = (
        "canvas => canvas.getContext('2d').getImageData(0, 0, 9, 9).data.some(Boolean)"
    )
    assert cards(page).nth(2).locator("canvas").evaluate(drawn)
    assert page.locator("#cards").bounding_box() == before
    # Of the boxed part, as it is embedded.
    with page.expect_response("**/attention?box=96,64,384,256") as answered:
        page.locator("#draw-box").click()
    assert answered.value.ok
    settle(page)


def test_a_model_without_attention_maps(tabs, url):
    page = open_page(tabs, url)
    tabs.expect(FAILED.format(404))
    error = {"error": "the index's model has no attention maps"}
    none = {"status": 404, "json": error}
    page.route("**/attention", lambda route: route.fulfill(**none))
    page.locator("#tokens").get_by_role("button", name="all").click()
    cards(page).first.locator(".photo").hover()
    expect(page.locator("#tokens")).to_contain_text("has no attention maps")
    expect(page.locator("#tokens button:disabled")).to_have_count(2)


def test_details(tabs, url, root):
    page = open_page(tabs, url)
    cards(page).nth(1).get_by_role("button", name="Details").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("fridge/juice/04.jpg")
    expect(dialog).to_contain_text("160 × 240 pixels")
    original = dialog.get_by_role("link", name="Open the full photo")
    assert page.request.get(url + original.get_attribute("href")).ok
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(cards(page).nth(1).get_by_role("button", name="Details")).to_be_focused()


def test_photos_are_added_and_removed(tabs, url, jpeg, root):
    page = open_page(tabs, url)
    page.locator("#open-add").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Folder").fill("new")
    tabs.expect(FAILED.format(422))
    send_files(page, "drop", jpeg(200, (90, 60)), b"no photo", to="#add-drop")
    expect(dialog.locator("li").nth(0)).to_contain_text("added")
    expect(dialog.locator("li").nth(1)).to_have_class(re.compile("failed"))
    page.keyboard.press("Escape")
    expect(page.locator("#num-photos")).to_have_text("31 photos")
    page.goto(url + "#folder=new")
    expect(cards(page)).to_have_count(1)
    cards(page).get_by_role("button", name="Details").click()
    for button in ("Keep it", "Remove"):
        page.get_by_role("button", name="Remove from the index").click()
        page.get_by_role("button", name=button, exact=True).click()
    expect(page.locator("#num-photos")).to_have_text("30 photos")
    assert len(list(root.glob("new/*"))) == 1


def test_read_only(serve, tabs):
    page = open_page(tabs, serve(read_only=True))
    expect(page.get_by_role("button", name="Add photos")).to_have_count(0)
    cards(page).first.get_by_role("button", name="Details").click()
    expect(page.get_by_role("dialog")).to_contain_text("Path")
    expect(page.get_by_role("button", name="Remove from")).to_have_count(0)


def test_a_broken_photo_and_one_that_is_not_known(tabs, url, photo):
    page = open_page(tabs, url)
    tabs.expect(FAILED.format("4(04|22)"))
    send_files(page, "drop", b"no photo")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("This photo cannot be used")
    expect(cards(page)).to_have_count(24)
    page.goto(url + "#like=0123456789abcdef")
    expect(alert).to_contain_text("A photo of this query is not known")
    alert.get_by_role("button", name="New search").click()
    expect(cards(page)).to_have_count(24)
    expect(alert).to_be_hidden()


def test_a_busy_service_is_queried_again(tabs, url, photo):
    page = open_page(tabs, url)
    tabs.expect(FAILED.format(429))
    busy = {
        "status": 429,
        "headers": {"Retry-After": "1"},
        "json": {"error": "too many"},
    }
    page.route("**/search", lambda route: route.fulfill(**busy), times=1)
    send_files(page, "drop", photo)
    expect(page.get_by_role("alert")).to_contain_text("The service is busy")
    expect(page.locator("#results-heading")).to_have_text("Results")
    settle(page)
    assert link(page)["like"] == [photo_digest(photo)]


def test_the_page_waits_for_the_index(tabs, url):
    page = tabs.open()
    tabs.expect(FAILED.format(503))
    loading = {
        "status": 503,
        "headers": {"Retry-After": "1"},
        "json": {"error": "wait"},
    }
    html = render_page("", "", None, read_only=True)
    page.route(url, lambda route: route.fulfill(body=html), times=1)
    page.route("**/photos?*", lambda route: route.fulfill(**loading), times=1)
    page.goto(url)
    expect(page.get_by_role("alert")).to_contain_text("The service is not ready")
    expect(page.locator("#num-photos")).to_have_text("30 photos")
    settle(page)
    expect(cards(page)).to_have_count(24)


def test_a_stopped_service(tabs, url, photo):
    page = open_page(tabs, url)
    tabs.expect("ERR_CONNECTION_REFUSED")
    page.route("**/search", lambda route: route.abort("connectionrefused"), times=1)
    send_files(page, "drop", photo)
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("The service does not answer")
    alert.get_by_role("button", name="Try again").click()
    settle(page)
    assert link(page)["like"] == [photo_digest(photo)]


def test_a_later_query_cancels_an_earlier_one(tabs, url, photo, jpeg):
    page = open_page(tabs, url)
    tabs.expect("ERR_FAILED")
    held = []
    page.route("**/search", lambda route: held.append(route), times=1)
    send_files(page, "drop", photo)
    expect(page.locator(".skeleton").first).to_be_visible()
    expect(page.locator("#results")).to_have_attribute("aria-busy", "true")
    other = jpeg(102, (90, 60))
    with page.expect_event("requestfailed"):
        send_files(page, "drop", other)
    settle(page)
    assert link(page)["like"] == [photo_digest(other)]


def test_the_token(serve, tabs, photo):
    page = tabs.open()
    tabs.expect(FAILED.format(401))
    page.goto(serve(token=SECRET) + "#folder=fridge")
    page.get_by_label("Token").fill("not the secret at all")
    page.keyboard.press("Enter")
    expect(page.get_by_text("refused this token")).to_be_visible()
    page.get_by_label("Token").fill(SECRET)
    page.keyboard.press("Enter")
    expect(cards(page)).to_have_count(20)
    # As if the service was started again with another token.
    page.context.clear_cookies()
    send_files(page, "drop", photo)
    for token in ("another one, refused", SECRET):
        page.get_by_role("dialog").get_by_label("Token").fill(token)
        page.keyboard.press("Enter")
    expect(page.locator("#results-heading")).to_have_text("Results")
    settle(page)
    assert link(page)["like"] == [photo_digest(photo)]


def violations(page):
    tags = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
    found = Axe().run(page, options={"runOnly": {"type": "tag", "values": list(tags)}})
    return [
        (each["id"], node["html"][:200], node["failureSummary"])
        for each in found.response["violations"]
        for node in each["nodes"]
    ]


@pytest.mark.slow
@both_sizes
@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_accessibility(tabs, url, size, color_scheme, photo):
    page = open_page(
        tabs, url, size, color_scheme=color_scheme, reduced_motion="reduce"
    )
    assert violations(page) == []
    search_with(page, photo)
    page.locator("#draw-box").click()
    settle(page)
    for name in ("More like this", "Not this one"):
        cards(page).first.get_by_role("button", name=name).click()
        settle(page)
    page.evaluate(
        "document.querySelectorAll('details').forEach((d) => { d.open = true; })"
    )
    page.locator("#labels").get_by_label("shelf").check()
    settle(page)
    assert violations(page) == []
    assert fits(page)
    cards(page).first.get_by_role("button", name="Details").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Path")
    assert violations(page) == []
    dialog.get_by_role("button", name="Remove from the index").click()
    assert violations(page) == []
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    page.locator("#open-add").click()
    assert violations(page) == []
    page.keyboard.press("Escape")
    tabs.expect(FAILED.format(404))
    page.goto(url + "#like=0123456789abcdef")
    expect(page.get_by_role("alert")).to_be_visible()
    assert violations(page) == []
    assert fits(page)
