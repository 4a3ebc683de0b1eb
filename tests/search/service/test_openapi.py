"""Every route and field is documented in /openapi.json."""

import json

import pytest
from starlette.testclient import TestClient

from tokret.search.service.answers import Error
from tokret.search.service.app import ROUTES, make_app
from tokret.search.service.guard import Access
from tokret.search.service.limits import Limits
from tokret.search.service.openapi import OPERATIONS
from tokret.search.service.state import Service


@pytest.fixture(scope="module")
def whole():
    from tokret.search.service.openapi import description

    return json.loads(description())


def test_every_route_and_method(whole):
    routes = {
        (method.lower(), route.path)
        for route in ROUTES
        for method in route.methods - {"HEAD"}
    }
    found = {(m, path) for path, methods in whole["paths"].items() for m in methods}
    assert found == routes
    assert len(OPERATIONS) == len(routes)


def test_every_field_has_a_type_and_words(whole):
    def check(schema, place):
        for name, field in schema.get("properties", {}).items():
            where = f"{place}.{name}"
            words = field.get("description") or linked(field).get("description")
            assert words and words.endswith("."), where
            assert {"type", "anyOf", "$ref", "enum", "allOf"} & field.keys(), where

    def linked(field):
        name = field.get("$ref", "").rpartition("/")[2]
        return whole["components"]["schemas"].get(name, {})

    for name, schema in whole["components"]["schemas"].items():
        assert schema["description"], name
        check(schema, name)
    for path, methods in whole["paths"].items():
        for method, operation in methods.items():
            assert operation["summary"].endswith("."), path
            for parameter in operation["parameters"]:
                assert parameter["description"], (path, parameter)
            for body in operation.get("requestBody", {}).get("content", {}).values():
                check(body["schema"], (method, path))


def test_references_and_errors(whole):
    text = json.dumps(whole)
    names = {part.partition('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert names == whole["components"]["schemas"].keys()
    search = whole["paths"]["/search"]["post"]
    assert {"400", "401", "403", "404", "413", "415", "422", "429", "503"} <= (
        search["responses"].keys()
    )
    for status, answer in search["responses"].items():
        schema = answer["content"]["application/json"]["schema"]["$ref"]
        assert (schema.rpartition("/")[2] == Error.__name__) == (status != "200")


def test_it_is_served(client, whole):
    assert client.get("/openapi.json").json() == whole


def test_refused_methods_and_addresses(client):
    assert client.put("/search").status_code == 405
    assert client.get("/nothing").json() == {"error": "there is no such address"}


def test_measurements(client, search):
    first = client.get("/photos", params={"top": 1}).json()["photos"][0]["id"]
    search(client, like=first)
    search(client, like=first, box="0,0,9,9")
    client.get("/nothing/1"), client.get("/nothing/2")
    text = client.get("/metrics").text
    for line in (
        'tokret_requests_total{method="POST",route="/search",status="200"} 2.0',
        'tokret_requests_total{method="any",route="none",status="404"} 2.0',
        'tokret_request_seconds_count{route="/search"} 2.0',
        "tokret_batch_photos_count 1.0",
        "tokret_photos 9.0",
        "tokret_queue_length 0.0",
        "tokret_requests_in_progress 0.0",
    ):
        assert line in text.splitlines(), line
    assert "process_resident_memory_bytes" in text
    for line in text.splitlines():
        assert "nothing/" not in line


def test_while_the_index_is_loaded_and_at_the_end():
    service = Service(Limits(decoders=1), Access({"testserver"}))
    with TestClient(make_app(service)) as client:
        answer = client.get("/healthz")
        assert (answer.status_code, answer.json()["status"]) == (503, "loading")
        for path in ("/photos", "/filters", f"/photos/{'0' * 16}"):
            answer = client.get(path)
            assert answer.status_code == 503 and answer.headers["retry-after"]
        assert client.post("/search").status_code == 503
        assert "tokret_photos 0.0" in client.get("/metrics").text
        service.stopping = True
        assert client.get("/healthz").json()["status"] == "stopping"
