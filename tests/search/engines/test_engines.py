"""What every engine does, compared with exact answers; Milvus's server is slow."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.search.engines.conftest import CONTENTS, DIMS, Library, free_port
from tokret.errors import UserError
from tokret.search.engines.milvus import MilvusEngine
from tokret.search.engines.opening import check_engine, open_engine
from tokret.search.engines.points import (
    ALONE,
    Contents,
    Payload,
    PhotoFile,
    Points,
    photo_digest_of,
    point_id,
    read_payload,
    text_hash,
)
from tokret.search.engines.protocol import EVERYTHING, Filter, Stats
from tokret.search.engines.qdrant import QdrantEngine
from tokret.search.engines.recording import in_shard
from tokret.search.engines.updating import EngineChange, update_engine
from tokret.search.filters import Filters
from tokret.search.indexing import update_index
from tokret.search.searcher import Searcher

ROOT = Path(__file__).parents[3]


def queries(number=3):
    rows = np.random.default_rng(1).standard_normal((number, DIMS))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def found(engine, query, top, only=EVERYTHING):
    (candidates,) = engine.search(query[None], top, only)
    scores = [each.score for each in candidates]
    assert scores == sorted(scores, reverse=True)
    return [
        each.payload.digest
        if each.payload
        else photo_digest_of(each.point, engine.writer)
        for each in candidates
    ]


def test_an_engine_without_points_has_no_answers(start):
    engine = start()
    assert engine.stats() == Stats(0, 0, "")
    assert engine.search(queries(2), 3) == [[], []]
    assert len(engine.listing().ids) == 0


def test_answers_are_the_exact_ones(start, library):
    engine = start()
    assert update_engine(engine, library.source()) == EngineChange(40, 0, 40)
    for query in queries():
        assert found(engine, query, 10) == library.best(query, 10)
    assert len(found(engine, queries()[0], 100)) == 40
    engine.close()
    engine = start()  # as another process would
    assert found(engine, queries()[0], 5) == library.best(queries()[0], 5)
    engine.close()


def test_filters_take_names_as_they_are(start, library):
    engine = start()
    update_engine(engine, library.source())
    (query,) = queries(1)
    for folder in {path.split("/")[0] for (path,) in library.files.values()}:
        want = library.best(query, 99, re.escape(f"{folder}/"))
        assert found(engine, query, 99, Filter((folder,))) == want
        below = library.best(query, 99, re.escape(f"{folder}/b/"))
        assert found(engine, query, 99, Filter((f"{folder}/b",))) == below
        assert found(engine, query, 99, Filter((folder,), ("b",))) == below
        assert found(engine, query, 99, Filter((folder,), ('"] or true',))) == []
    for name in ("", "a/", "b", "%", '"', "A"):
        want = library.best(query, 99, re.escape(f"{name}/"))
        assert found(engine, query, 99, Filter((name,))) == want
    two = Filter(('a"b', "c'd"), ("b", "below"))
    want = library.best(query, 99, r"(a\"b|c'd)/")
    assert found(engine, query, 99, two) == want
    engine.close()


def test_an_update_adds_and_deletes_what_differs(start, library):
    engine = start()
    update_engine(engine, library.source())
    removed, moved, *_ = sorted(library.files)
    del library.files[removed]
    library.files[moved] = ["elsewhere/x.jpg", 'a"b/copy.jpg']
    library.files["ab" * 8] = ["new/y.jpg"]
    assert update_engine(engine, library.source()) == EngineChange(2, 1, 40)
    assert update_engine(engine, library.source(5)) == EngineChange(0, 0, 40)
    for query in queries():
        assert found(engine, query, 50) == library.best(query, 50)
        assert found(engine, query, 9, Filter(("elsewhere",))) == [moved]
    assert found(engine, library.descriptor("ab" * 8), 1) == ["ab" * 8]
    engine.close()


def test_an_update_that_was_interrupted_is_resumed(start, library):
    class Interrupted(Exception):
        pass

    def add(points):
        if added:
            raise Interrupted
        added.append(len(points))
        real(points)

    engine, added = start(), []
    real, engine.add = engine.add, add
    with pytest.raises(Interrupted):
        update_engine(engine, library.source())
    engine.close()
    engine = start()
    change = update_engine(engine, library.source())
    assert change == EngineChange(40 - added[0], 0, 40)
    assert found(engine, queries()[0], 50) == library.best(queries()[0], 50)
    engine.close()


def test_an_engine_that_was_emptied_is_filled_again(start, library):
    engine = start()
    update_engine(engine, library.source())
    current = engine.stats().token
    engine.delete(engine.listing().ids[:30])
    engine.build("mine:of an older copy")
    assert update_engine(engine, library.source()) == EngineChange(30, 0, 40)
    assert engine.stats() == Stats(40, 40, current)
    engine.close()


def test_many_copies_of_a_photo_fit(start):
    paths = [f"{number}/{'long ' * 30}/{number}.jpg" for number in range(1000)]
    library = Library({"12" * 8: paths})
    engine = start()
    update_engine(engine, library.source())
    assert found(engine, queries()[0], 9, Filter(("999",))) == ["12" * 8]
    assert update_engine(engine, library.source(1)) == EngineChange(0, 0, 1)
    engine.close()


def test_writers_have_points_of_their_own(start_shared, library):
    other = Library({**library.files}, identity="other")
    other.files = {digest: ["there/p.jpg"] for digest in [*library.files][:10]}
    first, second = start_shared(writer="1/2"), start_shared(writer="2/2")
    update_engine(first, library.source())
    assert update_engine(second, other.source()) == EngineChange(10, 0, 10)
    assert first.stats()[:2] == (40, 50)
    (answer,) = start_shared(writer="2/2").search(queries(1), 60)
    paths = sorted(file.path for each in answer for file in each.payload.files)
    assert paths == sorted(
        [p for (p,) in library.files.values()] + ["there/p.jpg"] * 10
    )
    other.files = {"ab" * 8: ["there/q.jpg"]}
    assert update_engine(second, other.source()) == EngineChange(1, 10, 1)
    library.files |= other.files
    assert found(first, queries()[0], 50) == library.best(queries()[0], 50)


def test_photos_of_another_index_are_never_deleted(start_shared, library):
    engine = start_shared()
    engine.claim("other:")
    with pytest.raises(
        UserError, match="has the photos of another index; name another"
    ):
        update_engine(engine, library.source())


def test_points_of_another_model_are_refused(start_shared, library):
    update_engine(start_shared(), library.source())
    with pytest.raises(UserError, match="another model \\(model, not other\\)"):
        start_shared(Contents("other", DIMS))


def test_another_model_builds_an_embedded_engine_again(open_edge, library):
    update_engine(open_edge(), library.source())
    engine = open_edge(Contents("other", DIMS))
    assert engine.stats() == Stats(0, 0, "")
    assert update_engine(engine, library.source()) == EngineChange(40, 0, 40)
    assert open_edge().stats() == Stats(0, 0, "")


def test_searches_use_the_old_generation_during_an_update(open_edge, library):
    writer, reader = open_edge(), open_edge()
    update_engine(writer, library.source())
    assert reader.stats().points == 0
    reader = open_edge()
    want = library.best(queries()[0], 50)
    writer.delete(writer.listing().ids[:30])
    assert found(reader, queries()[0], 50) == want
    assert found(open_edge(), queries()[0], 50) == want
    writer.build("mine:later")
    assert found(reader, queries()[0], 50) == want
    assert open_edge().stats().points == 10


def test_a_damaged_draft_is_started_again(open_edge, library, tmp_path):
    engine = open_edge()
    engine.add(
        Points(np.zeros(1, np.uint64), queries(1), [Payload("0" * 16, "model", ())])
    )
    engine.close()
    for path in (tmp_path / "engine/draft/segments").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    assert update_engine(open_edge(), library.source()) == EngineChange(40, 0, 40)


def test_a_damaged_engine_is_one_error(open_edge, library, tmp_path):
    update_engine(open_edge(), library.source())
    (tmp_path / "engine/engine.json").write_text("{}")
    with pytest.raises(UserError, match="engine.json: "):
        open_edge()


@pytest.mark.parametrize("kind", [QdrantEngine, MilvusEngine])
def test_a_server_that_is_not_there_is_one_error(kind):
    name = kind.__name__.removesuffix("Engine").lower()
    url = f"{name}://127.0.0.1:{free_port()}/photos"
    with pytest.raises(UserError, match=url) as error:
        kind(url, CONTENTS, ALONE)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("qdrnat-edge", "argument=qdrnat-edge is no engine; did you mean qdrant-edge"),
        ("milvs://a:1/b", "did you mean milvus"),
        ("lancedb", "one of exact, qdrant-edge, qdrant://HOST:PORT/COLLECTION, mil"),
        ("milvus", "must be milvus://HOST:PORT/COLLECTION"),
        ("milvus://host/b", "must be milvus://HOST:PORT/COLLECTION"),
        ("qdrant://host:70000/b", "must be qdrant://HOST:PORT/COLLECTION"),
        ("qdrant://host:6333/a b", "must be qdrant://HOST:PORT/COLLECTION"),
        ("qdrant://user@host:6333/b", "must be qdrant://HOST:PORT/COLLECTION"),
        ("qdrant-edge://a", "must be qdrant-edge alone"),
        ("", "is no engine"),
    ],
)
def test_other_urls_are_refused(url, words):
    with pytest.raises(UserError, match=words.replace("(", r"\(")):
        check_engine(url, "argument")


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for url, extra in (("qdrant-edge", "qdrant"), ("milvus://h:1/c", "milvus")):
        with pytest.raises(UserError, match=rf"pip install .*tokret\[{extra}\]$"):
            check_engine(url, "to")


def test_an_engine_is_opened_by_its_url(tmp_path, library):
    url = check_engine("qdrant-edge", "to")
    update_engine(open_engine(url, tmp_path, CONTENTS), library.source())
    assert (tmp_path / "engines/qdrant-edge/engine.json").exists()
    assert check_engine("milvus://[::1]:19530/photos", "to")


@pytest.mark.parametrize(
    "found",
    [
        None,
        {"digest": "0" * 16, "model": "m", "files": [["a"]]},
        {"digest": "0", "model": "m", "files": [{"path": "../x"}]},
        {
            "digest": "0" * 16,
            "model": "m",
            "files": [{"path": "../x", "label": "", "size": 1, "modified": 1}],
        },
        {"digest": "../x", "model": "m", "files": []},
    ],
)
def test_a_payload_from_outside_is_checked(found):
    with pytest.raises(UserError, match="a point that tokret did not write"):
        read_payload(found, "milvus://a:1/b")


def test_ids_are_digests_unless_there_are_more_writers():
    assert point_id("00000000000000ff", ALONE) == 255
    ids = {point_id("00000000000000ff", writer) for writer in (ALONE, "1/2", "2/2")}
    assert len(ids) == 3
    assert photo_digest_of(point_id("ab" * 8, "1/2"), "1/2") == "ab" * 8
    assert -(2**63) <= text_hash("a") < 2**63


def test_folders_are_all_above_a_file():
    files = (PhotoFile("a/b/c.jpg", "b", 1, 2), PhotoFile("d.jpg", "", 1, 2))
    payload = Payload("0" * 16, "m", files)
    assert payload.folders() == ["a", "a/b"]
    assert payload.labels() == ["", "b"]


@pytest.mark.slow
def test_processes_fill_one_collection_together(
    milvus_address, tmp_path, photos, checkpoint, load
):
    url = f"milvus://{milvus_address}/photos_of_two"
    indexes = [tmp_path / f"index{number}" for number in (1, 2)]

    def start(number, *options):
        command = [sys.executable, "-m", "tokret", "index", photos, f"--to={url}"]
        command += [f"--index={indexes[number - 1]}", f"--shard={number}/2", *options]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)

    for process in [start(number, f"--checkpoint={checkpoint}") for number in (1, 2)]:
        out, _ = process.communicate()
        assert process.returncode == 0 and "0 deleted" in out
    update_index(photos, tmp_path / "all", load)
    everything = Searcher(tmp_path / "all", load)
    rows = everything.descriptors([hit.id for hit in everything.search(ONE, 9)[0]])

    def assert_all_are_found(top=9):
        for index in indexes:
            searcher = Searcher(index, load)
            assert searcher.engine == url
            assert searcher.num_photos == everything.num_photos
            for filters in (Filters(), Filters(("sea",)), Filters((), ("mountains",))):
                found = searcher.search(rows, top, filters)
                want = everything.search(rows, top, filters)
                assert [names(hits) for hits in found] == [names(h) for h in want]
                scores = [[hit.score for hit in hits] for hits in found]
                want = [[hit.score for hit in hits] for hits in want]
                np.testing.assert_allclose(scores, want, atol=1e-6)

    assert_all_are_found()
    gone = sorted(photos.rglob("*.jpg"))[0]
    gone.unlink()
    process = start(1 if in_shard("1/2")(gone.relative_to(photos).as_posix()) else 2)
    assert "1 deleted" in process.communicate()[0]
    update_index(photos, tmp_path / "all", load)
    everything.refresh()
    assert_all_are_found()


ONE = np.full((1, 8), 8**-0.5, np.float32)


def names(hits):
    return [(hit.name, hit.id, hit.label) for hit in hits]


@pytest.mark.parametrize("name", ["qdrant", "milvus"])
def test_a_server_that_does_not_answer_is_one_line(tmp_path, name):
    url = f"{name}://127.0.0.1:{free_port()}/photos"
    with pytest.raises(UserError) as raised:
        open_engine(url, tmp_path, CONTENTS)
    assert str(raised.value) == (
        f"{url}: no server answers there (Connection refused); start it, or check the "
        "host and the port"
    )
