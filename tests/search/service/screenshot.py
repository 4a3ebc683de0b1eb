"""Takes the guide's picture of the page, of photos that the demo's renderer draws.

make demo
python -m tests.search.service.screenshot demo docs/search.webp
"""

import contextlib
import io
import os
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from tests.browser import ARGUMENTS, ROOT_ARGUMENTS, find_browser
from tests.search.service.serving import serving
from tokret.data.synthetic_landmarks.photo_series import (
    DATABASE,
    QUERY,
    Series,
    take_series,
)
from tokret.search.extractor import load_extractor
from tokret.search.indexing import update_index

SEED, SIDE = 7, 480
SHOWN = 10  # the building that is searched for
NAMES = (
    *("abbey", "bastion", "chapel", "citadel", "dome", "gatehouse", "keep", "minster"),
    *("palace", "priory", "shrine", "temple"),
)


def draw_photos(root: Path) -> bytes:
    """Renders photos of buildings below a folder; returns another, of one of them."""
    for number, name in enumerate(NAMES):
        (root / name).mkdir(parents=True)
        photos = take_series(Series(SEED, number, DATABASE, 12, SIDE))
        for i, photo in enumerate(photos):
            (root / name / f"{name}-{i:02d}.jpg").write_bytes(photo.jpeg)
    return take_series(Series(SEED, SHOWN, QUERY, 1, SIDE))[0].jpeg


def show(page: Page, url: str, photo: bytes) -> None:
    """Brings the page into the state of the picture."""
    page.goto(url)
    file = {"name": "photo.jpg", "mimeType": "image/jpeg", "buffer": photo}
    page.locator("#file").set_input_files([file])
    page.get_by_role("heading", name="Results").wait_for()
    page.locator("#draw-box").click()
    page.locator("#results[aria-busy=false]").wait_for()
    page.locator("#tokens [data-token=all]").click()
    page.locator("#labels > summary").click()
    page.locator("#cards .photo").nth(1).hover()
    page.locator("#cards canvas.seen").wait_for()
    page.wait_for_load_state("networkidle")


def main(run: str, output: str) -> None:
    """Draws, indexes, serves and takes the picture."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        root = folder / "buildings"
        photo = draw_photos(root)
        extractor = load_extractor(Path(run))
        update_index(root, folder / "index", lambda copy: extractor)
        url = stack.enter_context(serving(folder / "index", extractor))
        playwright = stack.enter_context(sync_playwright())
        arguments = ARGUMENTS + (ROOT_ARGUMENTS if os.geteuid() == 0 else [])
        browser = playwright.chromium.launch(
            executable_path=find_browser(), args=arguments
        )
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(300_000)  # while programs are compiled
        show(page, url, photo)
        taken = Image.open(io.BytesIO(page.screenshot()))
        browser.close()
    taken.convert("RGB").save(output, quality=80, method=6)


if __name__ == "__main__":
    main(*sys.argv[1:])
