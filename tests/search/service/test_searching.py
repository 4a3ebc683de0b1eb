import pytest

from tokret.search.querying import query_index


def upload(content, name="photo", file="query.jpg"):
    return (name, (file, content, "image/jpeg"))


def search(client, *files, **fields):
    return client.post("/search", files=[*files] or None, data=fields)


def test_an_uploaded_photo_retrieves_itself_with_the_scores_of_a_query(
    client, index, photos, load
):
    path = photos / "sea" / "1.jpg"
    answer = search(client, upload(path.read_bytes()), top=3).json()
    expected = query_index(index, path, None, 3, load)
    assert [r["name"] for r in answer["results"]] == [hit.name for hit in expected]
    scores = [r["score"] for r in answer["results"]]
    assert scores == pytest.approx([hit.score for hit in expected], abs=1e-5)
    assert answer["total"] == 9 and answer["more"]
    assert answer["query"]["width"] == 48 and answer["query"]["height"] == 40
