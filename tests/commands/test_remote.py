"""Commands whose inputs and outputs are in object storage."""

import json

import jax.numpy as jnp
import pytest

from tests.commands.test_checkpoints import CONFIG, MEASURED
from tests.commands.test_convert import random_weights
from tests.test_eval import files  # noqa: F401 (a fixture)
from tokret.io.remote import objects, urls
from tokret.io.weight_files import write_safetensors
from tokret.training.checkpoint_arrays import start_saving
from tokret.training.checkpoint_metadata import make_metadata

ALONE = "--num_processes=1"


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    monkeypatch.setattr("tokret.io.remote.leases.SETTLES", 0.0)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "of another process")


def names(url):
    return {*objects.list_objects(url)}


@pytest.fixture
def run(storage, other_host):
    """The URL of a run of three checkpoints."""
    url = f"{storage.url}/run"
    folder = urls.local_path(url) / "checkpoints"
    folder.mkdir(parents=True)
    for step, measured in MEASURED.items():
        weights = {"params": {"model": {"w": jnp.arange(5000.0).reshape(50, 100)}}}
        metadata = make_metadata(CONFIG, step, measured)
        state = {**weights, "step": jnp.array(step)}
        start_saving(folder / str(step), state, metadata).result()
    other_host()
    return url


def test_checkpoints_are_listed_shown_and_pruned(run, tokret, other_host):
    objects.write_object(f"{run}/checkpoints/16/state/d/x", b"1" * 2**20)
    objects.write_object(f"{run}/damaged/3-1/x", b"1" * 2**19)
    status, out, err = tokret("checkpoints", "list", run)
    assert (status, err) == (0, "")
    rows = out.splitlines()
    assert [line.split()[0] for line in rows[1:4]] == ["4", "8", "12"]
    assert rows[1].endswith("whole, best top1") and rows[3].endswith("whole")
    assert rows[4].startswith("16: 1.0 MiB, half-written")
    assert rows[5].startswith("damaged/3-1: 0.5 MiB that a start could not read")
    # Arrays are not kept on the disk.
    assert not list(urls.local_path(run).rglob("d/*"))
    status, out, err = tokret("checkpoints", "show", run)
    assert status == 0 and out.startswith(f"{run}/checkpoints/12: ")
    # Of all files, not of those alone that list the run.
    size = sum(
        entry.size for entry in objects.list_objects(f"{run}/checkpoints/12").values()
    )
    assert f"12: {size / 2**20:.1f} MiB on disk" in out
    one = tokret("checkpoints", "show", f"{run}/checkpoints/4")[1]
    assert one.startswith(f"{run}/checkpoints/4: ")
    other_host()
    before = names(run)
    status, out, err = tokret("checkpoints", "prune", run, "--keep=1", "--dry_run")
    assert status == 0 and f"would remove {run}/checkpoints/8" in out
    assert names(run) == before
    status, out, err = tokret("checkpoints", "prune", run, "--keep=1")
    assert status == 0 and "kept: 4 (best top1), 12" in out
    kept = {name for name in before if not name.startswith("checkpoints/8/")}
    assert names(run) == kept


def test_a_flipped_bit_in_a_bucket_is_damage(run, tokret):
    name = max(n for n in names(run) if "checkpoints/8/" in n and "/d/" in n)
    content = bytearray(objects.read_object(f"{run}/{name}", 2**24))
    content[len(content) // 2] ^= 1
    objects.write_object(f"{run}/{name}", bytes(content))
    rows = tokret("checkpoints", "list", run)[1].splitlines()
    assert "damaged" in rows[2] and rows[3].endswith("whole")


def test_weights_are_converted_from_and_to_a_bucket(
    storage, tokret, other_host, tmp_path
):
    local = tmp_path / "w.safetensors"
    tensors = random_weights("gem")
    write_safetensors(local, tensors, {})
    file, folder, back = (
        f"{storage.url}/{n}" for n in ("w.safetensors", "c", "b.safetensors")
    )
    objects.upload(local, file)
    head = "--head=gem"
    assert tokret("convert", "inspect", file, head)[0] == 0
    status, out, err = tokret("convert", "from-torch", file, f"--output={folder}", head)
    assert status == 0, err
    assert f"written: {folder}; evaluate with tokret eval --workdir={folder} " in out
    assert {"config.json", "origin.json", "checkpoints/0/SHA256SUMS"} <= names(folder)
    other_host()
    assert "Orbax" in tokret("convert", "inspect", folder)[1]
    status, out, err = tokret("convert", "to-torch", folder, f"--output={back}")
    assert status == 0 and f"written: {back}" in out, err
    other_host()
    assert f"{len(tensors)} tensors" in tokret("convert", "inspect", back, head)[1]
    for command in (
        ("from-torch", file, f"--output={folder}", head),
        ("to-torch", folder, f"--output={back}"),
    ):
        status, out, err = tokret("convert", *command)
        assert status == 2 and f"{command[2]} is there already" in err


def test_a_conversion_that_fails_does_not_count(memory, tokret, tmp_path, monkeypatch):
    local = tmp_path / "w.safetensors"
    write_safetensors(local, random_weights("gem"), {})

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tokret.training.remote_checkpoints._write_locally", fail)
    folder = f"{memory.url}/c"
    command = ("convert", "from-torch", local, f"--output={folder}", "--head=gem")
    status, _, err = tokret(*command)
    assert status == 2 and "No space left" in err
    assert "SHA256SUMS" not in "".join(names(folder))


def test_descriptors_of_a_bucket_are_evaluated(storage, tokret, files, other_host):  # noqa: F811
    url = f"{storage.url}/descriptors"
    output = files.pop("output")
    local = [f"--{name}={path}" for name, path in files.items()]
    remote = [f"--{name}={url}/{path.name}" for name, path in files.items()]
    for path in files.values():
        objects.upload(path, f"{url}/{path.name}")
    more = (
        f"--distractors={url}/db.npy",
        f"--whiten={url}/db.npy",
        "--num_processes=1",
    )
    target = f"{url}/out.json"
    status, out, err = tokret("eval", *remote, f"--output={target}", *more)
    assert status == 0 and out.endswith(f"written: {target}\n"), err
    found = json.loads(objects.read_object(target, 2**20))
    learned = found["environment"].pop("whitening")
    assert learned["learned_from"] == f"{url}/db.npy"
    numbers = found["benchmarks"]["small"]
    assert numbers["distractors"].pop("path") == f"{url}/db.npy"
    assert "out.whitening.safetensors" in names(url)
    db = files["descriptors"]
    more = (f"--distractors={db}", f"--whiten={db}", ALONE)
    assert tokret("eval", *local, f"--output={output}", *more)[0] == 0
    expected = json.loads(output.read_text())["benchmarks"]["small"]
    del expected["distractors"]["path"]
    for each in (numbers, expected):  # times
        each.pop("seconds", None)
    assert numbers["medium"] == expected["medium"]
    assert numbers["distractors"] == expected["distractors"]
    # What is missing, and an output that is an input, before anything is computed.
    other_host()
    over = tokret(
        "eval", *remote, f"--output={url}/gnd_small.json", "--num_processes=1"
    )
    assert over[0] == 2 and "would overwrite an input" in over[2]
    missing = [f"--descriptors={url}/none.npy", *remote[1:], f"--output={target}"]
    status, _, err = tokret("eval", *missing, ALONE)
    assert status == 2 and f"{url}/none.npy: there is no such object" in err


def test_figures_are_written_to_a_bucket(memory, tokret, tmp_path, monkeypatch):
    from tokret.commands import benchmark

    json_url = f"{memory.url}/figures/plan.json"
    path = urls.local_path(json_url)
    benchmark.measure(lambda: ({"seconds": 1}, "report"), path, ends_at_once=True)
    assert json.loads(objects.read_object(json_url, 2**10)) == {"seconds": 1}


LOCAL_ALONE = [
    (("index", "{url}/photos", "--index=i"), "PHOTOS"),
    (("query", "p.jpg", "--index=i", "--root={url}"), "--root"),
    (("compare", "--output={url}", "--root={url}"), "--root"),
    (("compare", "--output={url}", "--config={url}/c.py"), "--config"),
    (("benchmark", "input", "--photos={url}"), "--photos"),
    (("benchmark", "search", "--scratch={url}"), "--scratch"),
]


@pytest.mark.parametrize(("words", "option"), LOCAL_ALONE)
def test_what_has_to_be_local_is_refused(memory, tokret, words, option):
    status, out, err = tokret(*(word.format(url=memory.url) for word in words))
    assert (status, out) == (2, "") and err.startswith(f"error: {option}: ")
    assert "is a URL, but only a local path is taken here; copy it first" in err
