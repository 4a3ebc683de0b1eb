"""A service as people start it: its lines, its end, kills and restarts."""

import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import httpx2
import pytest

from tokret.commands.serve import address_note
from tokret.data.views import photo_digest
from tokret.errors import UserError
from tokret.search.service import server
from tokret.search.service.server import Address
from tokret.search.service.service_file import FILE, running_service


def test_an_address_in_use_is_one_clear_line(tokret, refused, index):
    with Address(port=0).bind() as bound:
        port = bound.getsockname()[1]
        result = tokret("serve", f"--index={index}", f"--port={port}")
        refused(result, f"--port={port} is in use on 127.0.0.1")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--host=0.0.0.0"], "set TOKRET_TOKEN"),
        (["--host=192.0.2.1"], "set TOKRET_TOKEN"),
        (["--port=70000"], "--port is 70000"),
        (["--max_upload=0"], "--max_upload is 0"),
        (["--root=nowhere"], "--root=nowhere is not a folder"),
    ],
)
def test_a_mistake_is_one_clear_line(
    tokret, refused, index, monkeypatch, arguments, words
):
    monkeypatch.delenv("TOKRET_TOKEN", raising=False)
    refused(tokret("serve", f"--index={index}", *arguments), words)


def test_an_address_of_another_machine_cannot_be_bound():
    with pytest.raises(UserError, match=r"host=192\.0\.2\.1 is not an address"):
        Address("192.0.2.1", 0).bind()
    with pytest.raises(UserError, match="host=nowhere.invalid is not"):
        Address("nowhere.invalid", 0).bind()


def test_no_index_ends_with_one_line(tokret, refused, tmp_path):
    refused(tokret("serve", f"--index={tmp_path / 'none'}", "--port=0"), "not an index")


def test_urls():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        assert Address("0.0.0.0").url(bound) == f"http://127.0.0.1:{port}"
        assert Address("::1").url(bound) == f"http://[::1]:{port}"
        assert Address("::1").others_url(bound) == ""


def test_the_address_for_other_devices(monkeypatch):
    monkeypatch.setattr(server, "own_address", lambda: "192.0.2.7")
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        for host, own in (("0.0.0.0", "192.0.2.7"), ("192.0.2.8", "192.0.2.8")):
            url = Address(host).others_url(bound)
            assert url == f"http://{own}:{port}"
    note = address_note(url, ())
    assert note.startswith(f"{url} is for other devices") and "TOKRET_TOKEN" in note
    assert "--names (photos.example.org)" in address_note(url, ["photos.example.org"])
    assert address_note("", ()) == ""


class Running:
    """A process of `tokret serve`."""

    def __init__(self, process):
        self.process = process
        self.lines = []
        while not self.lines or " searches " not in self.lines[-1]:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            self.lines.append(line.strip())
        self.url = self.lines[-1].split()[0]

    def client(self):
        return httpx2.Client(base_url=self.url, timeout=120)

    def children(self):
        task = Path(f"/proc/{self.process.pid}/task")
        pids = [(each / "children").read_text() for each in task.iterdir()]
        return [int(pid) for pid in " ".join(pids).split()]

    def end(self, number):
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=120)
        return self.process.returncode, out, err


@pytest.mark.slow
def test_kills_restarts_and_the_end(start, index, photos, jpeg):
    def run():
        return Running(start("serve", f"--index={index}", "--port=0"))

    with contextlib.ExitStack() as stack:
        first = run()
        stack.callback(first.process.kill)
        assert running_service(index).url == first.url
        assert any(line.startswith("compiling") for line in first.lines)
        with first.client() as client:
            service = running_service(index).service
            assert client.get("/healthz").json()["service"] == service
            content = jpeg(seed=70)
            added = client.post("/photos", files={"photo": ("a.jpg", content)})
            assert added.status_code == 201
        workers = first.children()
        assert len(workers) >= 2
        first.end(signal.SIGKILL)
        # Its workers end by themselves; its file is not taken for that of a service.
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
        assert (index / FILE).exists() and running_service(index) is None

        again = run()
        stack.callback(again.process.kill)
        assert running_service(index).url == again.url
        with again.client() as client:
            found = client.post(
                "/search", files={"like": (None, photo_digest(content))}
            )
            assert found.json()["results"][0]["name"] == "a.jpg"
            assert found.json()["total"] == 10
            # A request that is running is finished, others are not accepted.
            answers = []
            body = slowly(jpeg(seed=71), at=lambda: os.kill(again.process.pid, 15))
            headers = {"Content-Type": "multipart/form-data; boundary=b"}
            answers.append(client.post("/search", content=body, headers=headers))
        status, _, err = again.end(signal.SIGTERM)
        assert (status, err) == (0, "")
        assert answers[0].status_code == 200 and answers[0].json()["results"]
        assert not (index / FILE).exists()


def slowly(content, at):
    """Yields the pieces of a form; between them it calls a function, and waits."""
    yield b'--b\r\nContent-Disposition: form-data; name="photo"; filename="a"\r\n\r\n'
    yield content[:100]
    time.sleep(0.5)
    at()
    time.sleep(0.5)
    yield content[100:]
    yield b"\r\n--b--\r\n"


def wait_for(condition):
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_the_commands_of_the_guide(start, index, photos, request):
    page = (request.config.rootpath / "docs" / "search.md").read_text()
    block = page.partition("## A service")[2].split("```")[1]
    serve, curl = block.strip().splitlines()
    _, _, *arguments = shlex.split(serve.replace("runs/index", str(index)))
    service = Running(start("serve", *arguments, "--port=0"))
    try:
        curl = curl.replace("http://127.0.0.1:8000", service.url)
        path = f"{photos}/sea/1.jpg"
        words = [word.replace("PHOTO.jpg", path) for word in shlex.split(curl)]
        done = subprocess.run(words, capture_output=True, check=True)
        results = json.loads(done.stdout)["results"]
        assert (len(results), results[0]["name"]) == (5, "sea/1.jpg")
    finally:
        service.process.kill()
        service.process.communicate()


@pytest.mark.slow
def test_many_clients_at_once(start, index, photos, jpeg):
    """No query is lost, too many are refused, and broken ones cost nothing."""
    service = Running(start("serve", f"--index={index}", "--port=0"))
    with contextlib.ExitStack() as stack:
        stack.callback(service.process.kill)
        seen = []

        def query(number):
            with service.client() as client:
                for seed in range(5):
                    name = f"{'sea' if seed % 2 else 'mountains'}/{seed}.jpg"
                    content = (photos / name).read_bytes() if seed != 3 else b"none"
                    answer = client.post("/search", files={"photo": ("a", content)})
                    best = answer.json().get("results", [{}])[0].get("name")
                    seen.append((seed, answer.status_code, best == name))

        threads = [threading.Thread(target=query, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for _ in range(20):  # closed in the middle of a request
            with socket.create_connection(service.url[7:].split(":")) as connection:
                connection.sendall(b"POST /search HTTP/1.1\r\nHost: localhost\r\n")
        for thread in threads:
            thread.join()
        assert len(seen) == 40
        assert all(
            (status, right) == ((422, False) if seed == 3 else (200, True))
            for seed, status, right in seen
        )
        with service.client() as client:
            text = client.get("/metrics").text
            assert "tokret_requests_in_progress 0.0" in text
        assert service.end(signal.SIGTERM)[0] == 0
