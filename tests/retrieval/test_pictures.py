import dataclasses
import io

import numpy as np
import pytest
from PIL import Image, ImageColor

from tokret.data.ground_truth import from_revisited
from tokret.data.views import View
from tokret.errors import UserError
from tokret.evaluation.image_sets import DescriptorSet
from tokret.evaluation.revisited_benchmark import RevisitedBenchmark
from tokret.retrieval import pictures
from tokret.retrieval.answers import Costs
from tokret.retrieval.pictures import (
    RankingRow,
    Result,
    pick_queries,
    ranking_rows,
)

TRUTH = from_revisited(
    {
        "imlist": list("abcd"),
        "qimlist": ["x", "y"],
        "gnd": [
            {"bbx": [0, 0, 4, 4], "easy": [0], "hard": [2], "junk": [1]},
            {"bbx": [1, 1, 3, 3], "easy": [3], "hard": [], "junk": []},
        ],
    },
    "t",
)
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


def test_borders_mark_hits_misses_and_junk_of_the_first_ten(tmp_path):
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
    row = RankingRow(plain(9, 9), None, "", [Result(plain(height, width), "hit", 0.5)])
    shown = tile(drawn([row], tmp_path / "p.png"), 0, 0)
    blue = (shown == BLUE).all(axis=-1)
    inner = pictures.TILE - 2 * pictures.BORDER
    seen = (blue.any(axis=1).sum(), blue.any(axis=0).sum())
    longest = max(height, width)
    assert seen == tuple(
        max(1, round(inner * side / longest)) for side in (height, width)
    )


def test_the_box_is_where_it_is_in_the_photo(tmp_path):
    # 160 x 80 in a tile of 160: scale 1, 40 rows of ground above.
    row = RankingRow(plain(80, 160), (20.0, 10.0, 120.0, 60.0), "AP 5.0", [])
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
    boxed = RankingRow(plain(30, 20), tuple(map(float, box)), "", [])
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


def test_marks_show_verdicts_without_colours(tmp_path):
    results = [Result(plain(20, 20), kind, 0.5) for kind in ("hit", "miss", "junk")]
    picture = drawn([RankingRow(plain(9, 9), None, "", results)], tmp_path / "p.png")
    start, end = pictures.BORDER, pictures.BORDER + pictures.MARK
    marks = [tile(picture, 0, place)[start:end, start:end] for place in range(3)]
    white = [(mark == 255).all(axis=-1) for mark in marks]
    assert all(20 < mark.sum() < 200 for mark in white)
    assert (white[0] != white[1]).sum() > 20 and (white[1] != white[2]).sum() > 20


def test_queries_from_the_best_to_the_worst():
    precision = np.array([0.1, np.nan, 0.9, 0.5, 0.7])
    assert pick_queries(precision) == [2, 4, 3, 0]
    assert pick_queries(precision, 2) == [2, 0]
    assert pick_queries(np.array([np.nan])) == []


def test_the_median_is_in_the_middle():
    picked = pick_queries(np.linspace(0, 1, 101))
    assert (picked[0], picked[len(picked) // 2], picked[-1]) == (100, 50, 0)


def test_rows_show_what_was_found():
    database = np.eye(4, dtype=np.float32)
    queries = np.array([[0.9, 0.8, 0.7, 0.6], [0.1, 0.2, 0.3, 0.4]], np.float32)

    def photo(i):
        buffer = io.BytesIO()
        Image.fromarray(np.full((6, 6, 3), i, np.uint8)).save(buffer, "PNG")
        return View(buffer.getvalue(), str(i), None, 6)

    boxed = [
        dataclasses.replace(photo(i), box=tuple(box))
        for i, box in enumerate(TRUTH.boxes.tolist())
    ]
    images = {"query": boxed, "database": [photo(i) for i in range(4)]}
    benchmark = RevisitedBenchmark(TRUTH, images)
    found = {
        "query": DescriptorSet(("x", "y"), queries, {}),
        "database": DescriptorSet(tuple("abcd"), database, {}),
    }
    ranks = benchmark.ranks(queries, database)
    benchmark = benchmark.select(found, skip_bad=False)
    answers = benchmark.answers(ranks, Costs(0.0, 0, 0.1, 4, 16))
    rows = ranking_rows(answers)
    # Without the junk before it, the second hit of the first query is its second.
    assert [row.caption for row in rows] == ["AP 100.0", "AP 100.0"]
    assert [r.verdict for r in rows[0].results] == ["hit", "junk", "hit", "miss"]
    assert [int(r.image[0, 0, 0]) for r in rows[1].results] == [3, 2, 1, 0]
    np.testing.assert_array_equal(rows[1].box, [1, 1, 3, 3])
