"""Photos that cannot be decoded cost one photo, never the service."""

import asyncio
import os
import signal

import pytest

from tests.search.service.test_searching import names, refused
from tokret.data.views import photo_digest
from tokret.search.service.decoder import Decoder
from tokret.search.service.decoding_worker import Source
from tokret.search.service.limits import MIB, Limits
from tokret.search.service.problems import Problem

# A worker with another function beside its own ones: it takes what time it is given.
SLEEPING = """
import time
from tokret.search.service import decoding_worker as worker
def view(source, box, side, pixels):
    if source.content == b"sleep":
        time.sleep(600)
    if source.content == b"end":
        worker.os._exit(1)
    if source.content == b"memory":
        bytearray(2**33)
    return worker.decode_view(source, box, side, pixels)
worker.serve({}, {{"decode_view": view}})
"""


def run(check, program=None, **limits):
    """Runs a check with a decoder of one worker; returns the kinds of failures."""
    failures = []

    async def main():
        decoder = Decoder(Limits(decoders=1, **limits), failures.append)
        if program:
            decoder.program = program
        async with decoder:
            await check(decoder)

    asyncio.run(main())
    return failures


async def refusal(decoder, content):
    with pytest.raises(Problem) as error:
        await decoder.view(Source(content), None, 48)
    return error.value.status, error.value.error


@pytest.mark.parametrize(
    ("content", "words", "kind"),
    [
        (b"sleep", "too long", "time"),
        (b"end", "decoder", "worker ended"),
        (b"memory", "memory", "refused"),
    ],
)
def test_a_photo_that_hangs_crashes_or_is_too_large(jpeg, content, words, kind):
    async def check(decoder):
        photo = Source(jpeg())
        first = await decoder.view(photo, None, 48)
        status, error = await refusal(decoder, content)
        assert status == 422 and words in error
        assert await decoder.view(photo, None, 48) == first

    program = SLEEPING.format(512 * MIB)
    assert run(check, program, decode_seconds=8.0) == [kind]


def test_a_worker_that_is_killed_while_idle_costs_nothing(jpeg):
    async def check(decoder):
        first = await decoder.view(Source(jpeg()), None, 48)
        for pid in decoder.pids():
            os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(0.1)
        assert await decoder.view(Source(jpeg()), None, 48) == first

    assert run(check) == []


@pytest.mark.parametrize(
    ("cut", "words"), [(slice(0, 300), "cannot be decoded"), (slice(5, None), "not")]
)
def test_truncated_and_other_files(serve, search, jpeg, cut, words):
    with serve() as client:
        answer = search(client, ("photo", jpeg(size=(200, 150))[cut]))
        assert refused(answer, 422, field="photo")
        assert "photo" in answer.json()["error"]
        text = client.get("/metrics").text
        assert 'tokret_decode_failures_total{reason="refused"} 1.0' in text


def test_pixels_are_bounded(serve, search, jpeg):
    with serve(pixels=1000) as client:
        assert refused(search(client, ("photo", jpeg())), 422, "1,000", field="photo")


def test_only_files_below_the_root_are_read(
    serve, search, photos, index, jpeg, tmp_path
):
    """Links that lead out of the root are not followed, whatever the index has."""
    outside = tmp_path / "outside.jpg"
    path = photos / "sea" / "1.jpg"
    outside.write_bytes(path.read_bytes())
    photo = photo_digest(path.read_bytes())
    path.unlink()
    path.symlink_to(outside)
    with serve() as client:
        assert names(search(client, like=photo))[0] == "sea/1.jpg"
        picture = client.get(f"/photos/{photo}/image")
        assert refused(picture, 404, "removed")
        assert str(tmp_path) not in picture.text
        assert refused(search(client, like=photo, box="0,0,9,9"), 404)
        shown = client.get(f"/photos/{photo}").json()
        assert shown["missing"] and shown["width"] is None
        assert refused(client.get(f"/photos/{photo}/attention"), 404)


def test_a_worker_has_no_token(monkeypatch):
    program = """
import os
from tokret.search.service import decoding_worker as worker
def view(*_):
    return worker.DecodedView(b"", int("TOKRET_TOKEN" in os.environ), 0, 0, 0)
worker.serve(2**31, {"decode_view": view})
"""

    async def check(decoder):
        assert (await decoder.view(Source(b"x"), None, 48)).height == 0

    monkeypatch.setenv("TOKRET_TOKEN", "t" * 16)
    run(check, program)
