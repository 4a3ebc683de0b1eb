import json

import cv2
import numpy as np
import pytest

from tokret.benchmark import serve_speed, service_process, synthetic_index
from tokret.benchmark.noise_photos import noise_photo, numbered
from tokret.search.filters import Filters
from tokret.search.searcher import Searcher

DIMS = 16


@pytest.fixture(scope="module")
def extractor(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "model"
    return synthetic_index.make_extractor(folder, DIMS, "tiny")


@pytest.fixture
def make(extractor, tmp_path, monkeypatch):
    """Returns a function that makes an index of random descriptors."""
    monkeypatch.setattr(synthetic_index, "PART", 40)
    monkeypatch.setattr(synthetic_index, "FOLDER", 50)
    (root := tmp_path / "photos").mkdir()

    def index(name, rows):
        synthetic_index.write_index(tmp_path / name, root, extractor, rows, DIMS)
        return tmp_path / name

    return index


def test_an_index_of_random_descriptors_is_searched(make, extractor):
    searcher = Searcher(make("index", 100), lambda copy: extractor)
    assert searcher.num_photos == 100
    assert searcher.folders() == {"000000": 50, "000001": 50}
    (first, *_), _ = searcher.browse(Filters(), 0, 3)
    (hits,) = searcher.search(searcher.descriptors([first[0]]), 3)
    assert hits[0].name == first[1] and hits[0].score == pytest.approx(1, abs=1e-5)


def test_a_numbered_photo_is_another_file_of_the_same_pixels():
    photo = noise_photo(0, 32, 48)
    others = {numbered(photo, number) for number in range(3)}
    assert len(others) == 3 and photo not in others
    first, *rest = (
        cv2.imdecode(np.frombuffer(each, np.uint8), cv2.IMREAD_COLOR)
        for each in (photo, *others)
    )
    for each in rest:
        np.testing.assert_array_equal(each, first)


def test_adding_is_timed_for_both_indexes(make, extractor, tmp_path, monkeypatch):
    monkeypatch.setattr(serve_speed, "ADDED", 3)
    indexes = {"few": make("few", 3), "many": make("many", 90)}
    found = serve_speed._adding(indexes, tmp_path / "photos", extractor, DIMS)
    assert {*found} == {"extraction", "no extraction"}
    for name, index in indexes.items():
        assert all(taken[name] > 0 for taken in found.values())
        searcher = Searcher(index, lambda copy: extractor)
        assert searcher.num_photos == {"few": 3, "many": 90}[name] + 6


def test_what_this_process_uses_is_counted():
    service = object.__new__(service_process.ServiceProcess)
    service.pid = service_process.os.getpid()
    used = service.resources()
    assert used.proportional_bytes > used.anonymous_bytes > 2**20
    assert used.threads >= 1 and used.files >= 3 and used.processes >= 1
    assert service.processor_seconds() > 0.1


@pytest.mark.slow
def test_a_service_is_timed(tmp_path, monkeypatch):
    made = serve_speed.make_extractor
    monkeypatch.setattr(
        serve_speed, "make_extractor", lambda folder, dims: made(folder, dims, "tiny")
    )
    monkeypatch.setattr(serve_speed, "BURST", 8)
    monkeypatch.setattr(serve_speed, "PROCESSES", 1)
    result = serve_speed.run(serve_speed.Sizes(60, 0, DIMS), 4, 1, tmp_path)
    assert json.loads(json.dumps(result))["at_once"]["lost"] == 0
    assert {*result["one"]["seconds"]} == {
        "over HTTP",
        "in one process",
        "tokret query",
    }
    lines = serve_speed.report(result).splitlines()
    assert max(map(len, lines)) <= 100
    assert [path.name for path in tmp_path.iterdir()] == []


def test_the_report_has_the_large_index_too():
    spread = (0.2, 0.1, 0.3)
    held = dict.fromkeys(
        ("start_seconds", "query_seconds", "proportional_bytes", "anonymous_bytes"), 2.0
    )
    result = {
        "environment": {"cores": 2, "processor": "a processor"},
        "photos": 100,
        "dims": 8,
        "clients": 16,
        "turns": 3,
        "one": {"seconds": {"over HTTP": spread}, "ratio": spread}
        | {"faster_than_a_process": 12.0},
        "at_once": {
            "queries": 64,
            "per_second": {"one": spread, "all": spread},
            "ratio": spread,
            "p50": {"one": 0.1, "all": 0.2},
            "p99": {"one": 0.1, "all": 0.2},
            "lost": 0,
        },
        "many": 1_000_000,
        "served": {"float32": held, "int8": held},
        "adding": {"extraction": {"few": 1.0, "many": 2.0}},
    }
    text = serve_speed.report(result)
    assert "lost: 0 of 128" in text and "1,000,000 photos" in text
    assert all(len(line) <= 100 for line in text.splitlines())


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--photos=0", "photos is 0"),
        ("--many=5", "many is 5"),
        ("--clients=0", "clients is 0"),
        ("--scratch=/nowhere", "--scratch: /nowhere is not a folder"),
        ("--photos=900000000", "descriptors need more than"),
    ],
)
def test_mistakes_are_a_line(tokret, refused, flag, words):
    refused(tokret("benchmark", "serve", flag), words)
