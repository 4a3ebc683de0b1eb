"""Metrics and events in object storage: in parts, each uploaded whole."""

import contextlib
import json

import pytest

from tokret.io.remote import objects, urls
from tokret.io.remote.uploading import Uploads
from tokret.training import metrics_lines, tensorboard
from tokret.training.profiling import Profile
from tokret.training.reporting import Reporter

METRICS = {"loss": 2.0, "top1": 0.25, "top5": 0.5, "learning_rate": 0.1}


@pytest.fixture
def run(memory):
    place = urls.local_path(f"{memory.url}/run")
    place.mkdir(parents=True)
    return place


def train(run, first_step, last_step):
    fields = {"first_step": first_step, "steps": 9, "batch_size": 4}
    with (
        Uploads() as uploads,
        contextlib.closing(Reporter(run, **fields, uploads=uploads)) as reporter,
    ):
        for step in range(first_step + 1, last_step + 1):
            reporter.advance()
            reporter.train(step, METRICS)
        reporter.validation(last_step, 1, METRICS)


def parts(run):
    """The steps and kinds of the lines of each part in the bucket, by its name."""
    url = f"{urls.url_of(run)}/metrics"
    found = {}
    for name in objects.list_objects(url):
        lines = objects.read_object(f"{url}/{name}", 10**6).decode().splitlines()
        read = [json.loads(line) for line in lines]
        found[name] = [line["kind"][0] + str(line["step"]) for line in read]
    return found


def test_a_resumed_run_drops_lines_of_repeated_steps(run):
    train(run, 0, 5)
    assert parts(run) == {"0000000001.jsonl": ["t1", "t2", "t3", "t4", "t5", "v5"]}
    train(run, 3, 6)
    assert parts(run) == {
        "0000000001.jsonl": ["t1", "t2", "t3"],
        "0000000004.jsonl": ["t4", "t5", "t6", "v6"],
    }
    train(run, 3, 4)
    assert [*parts(run)] == ["0000000001.jsonl", "0000000004.jsonl"]
    train(run, 0, 2)
    assert parts(run) == {"0000000001.jsonl": ["t1", "t2", "v2"]}
    assert not (run / "metrics.jsonl").exists()


def test_a_part_has_a_bounded_size(run, monkeypatch):
    monkeypatch.setattr(metrics_lines, "PART", 300)
    train(run, 0, 5)
    found = parts(run)
    assert [*found] == sorted(found) and len(found) > 1
    lines = [line for lines in found.values() for line in lines]
    assert lines == ["t1", "t2", "t3", "t4", "t5", "v5"]
    assert all(
        name == f"{int(lines[0][1:]):010d}.jsonl" for name, lines in found.items()
    )


def test_lines_of_one_step_stay_in_one_part(run, monkeypatch):
    monkeypatch.setattr(metrics_lines, "PART", 1)
    with Uploads() as uploads:
        metrics = metrics_lines.MetricsParts(run / "metrics", 0, uploads)
        for step in (1, 1, 2):
            metrics.write({"step": step, "kind": "train"})
        metrics.close()
    assert parts(run) == {"0000000001.jsonl": ["t1", "t1"], "0000000002.jsonl": ["t2"]}


def test_what_is_in_the_folder_besides_stays(run):
    url = f"{urls.url_of(run)}/metrics"
    for name in ("notes.txt", "7.jsonl", "0000000007.jsonl.bak"):
        objects.write_object(f"{url}/{name}", b"")
    train(run, 0, 1)
    assert len(objects.list_objects(url)) == 4


def test_events_are_uploaded_in_parts(run, monkeypatch):
    monkeypatch.setattr(tensorboard, "PART", 400)
    seconds = iter(range(1_700_000_000, 1_800_000_000))
    monkeypatch.setattr(tensorboard.time, "time", lambda: next(seconds))
    train(run, 0, 5)
    url = f"{urls.url_of(run)}/tensorboard"
    found = objects.list_objects(url)
    assert len(found) > 1
    for name, entry in found.items():
        assert "tfevents" in name and 0 < entry.size < 1000
        content = objects.read_object(f"{url}/{name}", 1000)
        assert content == (run / "tensorboard" / name).read_bytes()


def test_a_trace_is_uploaded(run):
    with Uploads() as uploads:
        profile = Profile(run / "profile", range(1, 2), uploads)
        with profile.step(1):
            pass
    assert any(
        name.endswith(".xplane.pb")
        for name in objects.list_objects(f"{urls.url_of(run)}/profile")
    )
