import numpy as np
import pytest
from PIL import Image, ImageColor

from tokret.errors import UserError
from tokret.retrieval import pictures
from tokret.retrieval.pictures import RankingRow, Result

BLUE = (20, 40, 200)


def plain(height, width):
    return np.full((height, width, 3), BLUE, np.uint8)


def drawn(rows, path):
    pictures.ranking_picture(rows, path)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture)


def row_top(number):
    step = pictures.TILE + pictures.CAPTION + pictures.ROW_GAP
    return pictures.MARGIN + pictures.LEGEND + number * step


def tile(picture, row, place):
    """The pixels of result `place` of a row."""
    left = pictures.MARGIN + pictures.TILE + pictures.QUERY_GAP
    left += place * (pictures.TILE + pictures.GAP)
    top = row_top(row)
    return picture[top : top + pictures.TILE, left : left + pictures.TILE]


def test_borders_tell_hits_misses_and_junk_and_ten_are_shown(tmp_path):
    verdicts = ["hit", "miss", "junk"] * 4
    results = [Result(plain(20, 20), verdict, 0.5) for verdict in verdicts]
    row = RankingRow(plain(20, 20), None, "AP 71.3", results)
    picture = drawn([row, row], tmp_path / "p.png")
    for place, verdict in enumerate(verdicts[: pictures.RESULTS]):
        border = ImageColor.getrgb(pictures.COLOURS[verdict])
        for number in (0, 1):
            shown = tile(picture, number, place)
            assert tuple(shown[0, 0]) == tuple(shown[-1, -1]) == border
            assert tuple(shown[80, 80]) == BLUE
    assert (picture[:, -pictures.MARGIN + 2 :] == 255).all()
    assert [file.name for file in tmp_path.iterdir()] == ["p.png"]


@pytest.mark.parametrize(("height", "width"), [(100, 50), (50, 100), (1, 900)])
def test_the_whole_image_is_seen_in_its_own_proportions(tmp_path, height, width):
    row = RankingRow(plain(9, 9), None, "", [Result(plain(height, width), "hit")])
    shown = tile(drawn([row], tmp_path / "p.png"), 0, 0)
    blue = (shown == BLUE).all(axis=-1)
    inner = pictures.TILE - 2 * pictures.BORDER
    seen = (blue.any(axis=1).sum(), blue.any(axis=0).sum())
    longest = max(height, width)
    assert seen == tuple(
        max(1, round(inner * side / longest)) for side in (height, width)
    )


def test_the_box_lies_where_it_lies_in_the_photo(tmp_path):
    # 160 x 80 in a tile of 160: scale 1, 40 rows of ground above.
    row = RankingRow(plain(80, 160), np.array([20.0, 10, 120, 60]), "AP 5.0", [])
    picture = drawn([row], tmp_path / "p.png")
    top, left = row_top(0), pictures.MARGIN
    box = ImageColor.getrgb(pictures.BOX_COLOUR)
    query = picture[top : top + pictures.TILE, left : left + pictures.TILE]
    ys, xs = np.nonzero((query == box).all(axis=-1))
    assert (xs.min(), ys.min(), xs.max(), ys.max()) == (21, 51, 119, 99)
    assert tuple(query[75, 70]) == BLUE


@pytest.mark.parametrize(
    "box", [(-50, -50, 9999, 9999), (5, 5, 5.1, 5.1), (900, 900, 950, 950)]
)
def test_a_box_that_leaves_the_photo_or_hardly_exists_is_drawn_too(tmp_path, box):
    plainly = RankingRow(plain(30, 20), None, "", [])
    boxed = RankingRow(plain(30, 20), np.array(box, float), "", [])
    without = drawn([plainly], tmp_path / "a.png")
    assert (drawn([boxed], tmp_path / "b.png") != without).any()


def test_a_long_caption_stays_under_its_tile(tmp_path):
    row = RankingRow(plain(9, 9), None, "a very long name " * 20, [])
    picture = drawn([row], tmp_path / "p.png")
    below = row_top(0) + pictures.TILE
    caption = picture[below : below + pictures.CAPTION] < 128
    columns = np.nonzero(caption.any(axis=(0, 2)))[0]
    assert columns.min() >= pictures.MARGIN - 1
    assert columns.max() <= pictures.MARGIN + pictures.TILE


def test_a_folder_that_is_not_there(tmp_path):
    row = RankingRow(plain(9, 9), None, "", [])
    with pytest.raises(UserError, match=r"p\.png: cannot be written: No such file"):
        pictures.ranking_picture([row], tmp_path / "none" / "p.png")


def test_marks_tell_verdicts_without_colours(tmp_path):
    results = [Result(plain(20, 20), kind, 0.5) for kind in ("hit", "miss", "junk")]
    picture = drawn([RankingRow(plain(9, 9), None, "", results)], tmp_path / "p.png")
    start, end = pictures.BORDER, pictures.BORDER + pictures.MARK
    marks = [tile(picture, 0, place)[start:end, start:end] for place in range(3)]
    white = [(mark == 255).all(axis=-1) for mark in marks]
    assert all(20 < mark.sum() < 200 for mark in white)
    assert (white[0] != white[1]).sum() > 20 and (white[1] != white[2]).sum() > 20
