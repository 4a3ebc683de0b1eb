"""Forms are read whole, within bounds; a malformed one is one clear line."""

import asyncio

import pytest
from starlette.requests import Request

from tests.search.service.test_searching import refused
from tokret.search.service.form_parts import read_form
from tokret.search.service.limits import Limits
from tokret.search.service.problems import Problem

BOUNDARY = "b0"
KIND = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def part(name, content=b"x", filename=None):
    extra = f'; filename="{filename}"' if filename is not None else ""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{extra}'
    return head.encode() + b"\r\n\r\n" + content + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()


def post(client, body):
    return client.post("/search", content=body, headers=KIND)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "ends before"),
        (part("like"), 400, "ends before"),
        (b"nonsense" + END, 400, "malformed"),
        (f"--{BOUNDARY}\r\nA: b\r\n\r\nx\r\n".encode() + END, 400, "no name"),
        (part("like") * 5 + END, 413, "4 parts"),
        (part("photo", b"x", "a") * 3 + END, 413, "2 photos"),
        (part("photo", b"x" * 1001, "a") + END, 413, "larger"),
        (part("like", b"x" * 51) + END, 413, "50 bytes"),
        (part("like", b"\xff") + END, 400, "UTF-8"),
        (part("x" * 60) + END, 413, "headers of a part"),
        (part("photo", b"x", "x" * 60) + END, 413, "headers of a part"),
        (part("photo", b"x" * 900, "a") * 2 + part("x") * 2 + END, 413, "request"),
    ],
)
def test_refused(serve, body, status, words):
    limits = {"parts": 4, "photos": 2, "photo_bytes": 1000, "field_bytes": 50}
    limits |= {"head_bytes": 80}
    with serve(body_bytes=2000, **limits) as client:
        assert refused(post(client, body), status, words, field=None)
        # Also without its length in a header.
        pieces = (body[i : i + 100] for i in range(0, len(body), 100))
        assert refused(post(client, pieces), status, words, field=None)
        assert client.get("/healthz").status_code == 200


def test_names_of_files_are_only_words(serve):
    with serve() as client:
        body = part("photo", b"no photo", "../../../etc/<b>\u202e") + END
        assert refused(post(client, body), 422, "not a photo", field="photo")


def test_uploads_at_once_are_bounded(serve, jpeg, search):
    with serve(bytes_in_progress=1000) as client:
        answer = search(client, ("photo", jpeg(size=(400, 300), quality=95)))
        assert refused(answer, 429, "too many uploads", field=None)
        assert int(answer.headers["retry-after"]) >= 1
        # Nothing of it is counted any more.
        assert client.service.metrics.response().body.count(b"kept_bytes 0.0") == 1


def test_a_body_that_never_ends_is_refused():
    async def receive():
        await asyncio.sleep(600)

    headers = [(name.lower().encode(), kind.encode()) for name, kind in KIND.items()]
    request = Request({"type": "http", "headers": headers}, receive)
    limits = Limits(receive_seconds=0.01)
    with pytest.raises(Problem) as error:
        asyncio.run(read_form(request, limits, lambda size: None))
    assert error.value.status == 408
