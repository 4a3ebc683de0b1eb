"""eval of a run in object storage: resumed on another host, results as on a disk."""

import json
import re

import pytest

from tests.search.conftest import save_model
from tokret.io.remote import objects, urls
from tokret.retrieval.store import remote_batches


class KilledError(BaseException):
    """Ends a process."""


def content(folder_or_url):
    """The numbers of results.json, without where they were measured."""
    if isinstance(folder_or_url, str):
        text = objects.read_object(f"{folder_or_url}/eval/results.json", 2**20)
    else:
        text = (folder_or_url / "eval" / "results.json").read_bytes()
    found = json.loads(text)["benchmarks"]
    for numbers in found.values():
        numbers.pop("extraction", None)
    return found


@pytest.mark.parametrize("kind", ["memory", "gcs"])
def test_a_run_is_evaluated_and_resumed_elsewhere(
    kind, request, tokret, photo_folder, other_host, tmp_path, monkeypatch
):
    storage = request.getfixturevalue(kind)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "of another process")
    monkeypatch.setattr("tokret.io.remote.leases.SETTLES", 0.0)
    monkeypatch.setattr("tokret.io.remote.leases.EXPIRES", 0.0)
    model = save_model(tmp_path / "model", 0)
    url = f"{storage.url}/model"
    for file in model.rglob("*"):
        if file.is_file():
            objects.upload(file, f"{url}/{file.relative_to(model).as_posix()}")
    command = ("eval", f"--image_folder={photo_folder}", f"--data_dir={tmp_path}")
    command = (*command, "--num_processes=1")
    status, out, err = tokret(*command, f"--workdir={model}")
    assert status == 0, err

    # Killed after it has uploaded one batch of several.
    other_host()
    parts = []

    def write_object(url, content, **options):
        if parts:
            raise KilledError
        parts.append(url)
        objects.write_object(url, content, **options)

    with monkeypatch.context() as patch:
        patch.setattr(remote_batches, "PERIOD", 0.0)
        patch.setattr(remote_batches, "write_object", write_object)
        with pytest.raises(KilledError):
            tokret(*command, f"--workdir={url}")
    assert len(parts) == 1 and parts[0].startswith(f"{url}/eval/descriptors/")

    other_host()
    status, out, err = tokret(*command, f"--workdir={url}")
    assert status == 0, err
    # One batch of four, or those that were extracted while it was uploaded too.
    assert re.search(rf"descriptors: {url}/eval/descriptors/\S+: [1-9]\d* of ", out), (
        out
    )
    assert out.endswith(f"written: {url}/eval\n")
    assert content(url) == content(model)
    assert not list(urls.local_path(url).rglob("manifest.ocdbt"))  # of the arrays
    names = {name for name in objects.list_objects(f"{url}/eval")}
    assert {"results.json", "report.html", "queries.png"} <= names
    assert not [name for name in names if "parts/" in name or "unfinished" in name]

    # All is there: nothing is extracted again, and other results stay.
    other_host()
    before = objects.find_object(f"{url}/eval/report.html")
    status, out, err = tokret(
        *command, f"--checkpoint={url}/checkpoints/0", "--no-report"
    )
    assert status == 0, err
    assert content(url) == content(model)
    assert objects.find_object(f"{url}/eval/report.html") == before
