import csv
import json
import os

import pytest

from tokret.search import service_client
from tokret.search.indexing import update_index
from tokret.search.service import service_file
from tokret.search.service.service_file import FILE, write_service


@pytest.fixture
def index(load, photos, tmp_path):
    update_index(photos, tmp_path / "index", load)
    return tmp_path / "index"


@pytest.fixture
def query(tokret, index, photos):
    """Returns a function that runs a query: its output, of status 0."""

    def run(*arguments):
        paths = [
            photos / a if isinstance(a, str) and not a.startswith("--") else a
            for a in arguments
        ]
        status, out, err = tokret("query", *paths, f"--index={index}")
        assert status == 0, out + err
        return out

    return run


def test_text_is_one_line_a_hit(query, photos):
    lines = query("sea/1.jpg", "--top=2").splitlines()
    assert lines[0] == f"   1  1.0000  {photos}/sea/1.jpg"
    assert len(lines) == 3 and lines[2].startswith("9 photos searched in ")


def test_json(query, photos):
    (found,) = json.loads(query("sea/1.jpg", "--top=2", "--format=json"))
    assert found["query"] == str(photos / "sea/1.jpg") and found["photos"] == 9
    first, second = found["hits"]
    assert first["path"] == str(photos / "sea/1.jpg") and first["rank"] == 1
    assert first["score"] == pytest.approx(1, abs=1e-5) and first["label"] == "sea"
    assert not first["missing"] and second["rank"] == 2 and len(first["id"]) == 16


def test_csv_of_a_folder_has_each_photo_as_a_query(query, photos):
    rows = [*csv.DictReader(query("sea", "--top=3", "--format=csv").splitlines())]
    assert len(rows) == 4 * 3
    assert {row["query"] for row in rows} == {
        str(p) for p in (photos / "sea").iterdir()
    }
    assert all(row["path"] == row["query"] for row in rows if row["rank"] == "1")


def test_several_photos_in_text_are_named(query, photos):
    out = query("sea/1.jpg", "sea/5.jpg", "--top=1")
    assert f"{photos}/sea/5.jpg:\n   1  1.0000  {photos}/sea/5.jpg\n" in out


def test_together_and_unlike_are_one_query(query, photos):
    both = json.loads(query("sea/1.jpg", "sea/5.jpg", "--together", "--format=json"))
    assert {hit["name"] for hit in both[0]["hits"][:2]} == {"sea/1.jpg", "sea/5.jpg"}
    (found,) = json.loads(
        query("sea/1.jpg", f"--unlike={photos}/sea/5.jpg", "--format=json")
    )
    assert found["hits"][0]["name"] == "sea/1.jpg" and len(both) == 1
    scores = {hit["name"]: hit["score"] for hit in found["hits"]}
    alone = json.loads(query("sea/1.jpg", "--format=json"))[0]["hits"]
    assert scores["sea/5.jpg"] < {h["name"]: h["score"] for h in alone}["sea/5.jpg"]


def test_filters_and_what_is_skipped(query, photos):
    (found,) = json.loads(
        query("sea/1.jpg", "--folder=sea/", "--leave_out_query", "--format=json")
    )
    assert {hit["label"] for hit in found["hits"]} == {"sea"}
    assert len(found["hits"]) == 3 and found["photos"] == 4
    (photos / "copy.jpg").write_bytes((photos / "sea/1.jpg").read_bytes())
    hidden = json.loads(
        query("copy.jpg", "--near_duplicates=hide", "--top=9", "--format=json")
    )[0]["hits"]
    assert hidden[0]["name"] == "sea/1.jpg"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "photos: is missing"),
        (("sea", "--box=0,0,9,9"), "--box: is of one photo, and there are 4"),
        (("sea", "--report=x.html"), "--report: is of one query, and there are 4"),
        (("sea/1.jpg", "--folder=lake"), "is in the folder lake; its folders: mount"),
        (("sea/1.jpg", "--folder=photos/sea"), "photos/sea; did you mean sea? Its fol"),
        (("sea/1.jpg", "--label=Sea"), "has the label Sea; did you mean sea? Its lab"),
        (
            ("sea/1.jpg", "--folder=sea", "--label=mountains"),
            "in such a folder and has",
        ),
        (("sea/none.jpg",), "sea/none.jpg: missing"),
    ],
)
def test_mistakes_are_a_line(tokret, refused, index, photos, arguments, message):
    paths = [photos / a if not a.startswith("--") else a for a in arguments]
    refused(tokret("query", *paths, f"--index={index}"), message)


def test_unreadable_queries_of_several_are_named_at_the_end(
    tokret, refused, index, photos
):
    (photos / "sea" / "0.jpg").write_bytes(b"no photo")
    result = tokret("query", photos / "sea", f"--index={index}", "--format=csv")
    refused(result, "1 of 5 queries could not be read; the first: ", "0.jpg")
    assert len({line.split(",")[0] for line in result[1].splitlines()[1:]}) == 4


def test_duplicates(tokret, index, photos, load, tmp_path):
    (photos / "copy.jpg").write_bytes((photos / "sea/1.jpg").read_bytes())
    update_index(photos, index, load)
    strict = "--threshold=0.999999"
    status, out, err = tokret("duplicates", index, strict)
    assert status == 0, out + err
    lines = out.splitlines()
    assert lines[0] == f"   1  1.0000  {photos}/copy.jpg"
    words = "2 photos in 1 group, 20.0 % of 10, from a cosine of 1.0000: as it was gi"
    assert lines[-1].startswith(words)
    out = tokret("duplicates", index)[1]
    assert "from a cosine of 0.9800: this index has too few photos to learn" in out
    page = tmp_path / "page.html"
    given = ("--threshold=0.5", "--format=json", f"--report={page}")
    status, out, err = tokret("duplicates", index, *given)
    found = json.loads(out.partition("written: ")[0])
    assert status == 0 and found["threshold"] == 0.5 and found["learned"] == 0.98
    assert sum(map(len, found["groups"])) == found["near_duplicates"]
    assert "data:image/webp;base64," in page.read_text()
    status, out, err = tokret("duplicates", index, "--format=csv", strict)
    assert [row["group"] for row in csv.DictReader(out.splitlines())] == ["1", "1"]


class Service:
    """Stands for a running service: notes requests, and answers with some bytes."""

    def __init__(self, answers):
        self.answers, self.requests = answers, []

    def request(self, method, path, body, headers, wait):
        self.requests.append((method, path, body, headers))
        return self.answers[path]


@pytest.fixture
def service(index, monkeypatch):
    """A service of the index, without a network."""
    health = json.dumps({"status": "ready", "service": "a name"}).encode()
    result = {"id": "0" * 16, "name": "sea/5.jpg", "label": "sea", "score": 0.5}
    seconds = {"decode": 0.1, "extract": 0.2, "search": 0.3}
    answer = {"results": [result], "total": 9, "more": False, "seconds": seconds}
    found = Service({"/healthz": health, "/search": json.dumps(answer).encode()})
    monkeypatch.setattr(
        service_client.ServiceClient,
        "_request",
        lambda self, *arguments: found.request(*arguments),
    )
    assert write_service(index, "http://127.0.0.1:1", "a name")
    return found


def test_a_running_service_answers(query, service, photos, monkeypatch):
    monkeypatch.setenv("TOKRET_TOKEN", "secret")
    out = query("sea/1.jpg", "--folder=sea", "--top=7")
    assert out.splitlines()[0] == f"   1  0.5000  {photos}/sea/5.jpg"
    (_, _, _, before), (method, path, body, headers) = service.requests
    assert "Authorization" not in before  # who answers is not known yet
    assert (method, path) == ("POST", "/search")
    assert headers["Authorization"] == "Bearer secret"
    assert b'name="folder"\r\n\r\nsea\r\n' in body and b'name="top"\r\n\r\n7' in body
    assert (photos / "sea" / "1.jpg").read_bytes() in body


@pytest.mark.parametrize(
    ("url", "health"),
    [
        ("http://10.0.0.1:1", {"status": "ready", "service": "a name"}),
        ("https://127.0.0.1:1", {"status": "ready", "service": "a name"}),
        ("http://127.0.0.1:1", {"status": "ready", "service": "another"}),
        ("http://127.0.0.1:1", {"status": "loading", "service": "a name"}),
    ],
)
def test_another_service_gets_no_photo(query, service, index, photos, url, health):
    service.answers["/healthz"] = json.dumps(health).encode()
    (index / FILE).unlink()
    assert write_service(index, url, "a name")
    assert query("sea/1.jpg", "--top=1").startswith("   1  1.0000  ")
    assert "/search" not in [path for _, path, _, _ in service.requests]


@pytest.mark.parametrize("answer", [b"", b"{}", b'{"error": "x"}'])
def test_an_answer_that_is_none_is_replaced_by_a_search(query, service, answer):
    service.answers["/search"] = answer
    assert query("sea/1.jpg", "--top=1").startswith("   1  1.0000  ")


def test_a_service_of_another_user_gets_no_photo(query, service, monkeypatch):
    monkeypatch.setattr(service_file.os, "geteuid", lambda: 12345)
    assert query("sea/1.jpg", "--top=1").startswith("   1  1.0000  ")
    assert service.requests == []


def test_a_named_pipe_is_not_waited_for(tokret, service, index, photos):
    os.mkfifo(photos / "pipe.jpg")
    status, _, err = tokret("query", photos / "pipe.jpg", f"--index={index}")
    assert status == 2 and "a named pipe" in err
