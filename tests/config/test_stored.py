import dataclasses
import re
import shlex
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokret.config import stored
from tokret.config.files import load_config
from tokret.config.parsing import parse, parse_saved, to_tree
from tokret.config.tree import DatasetIdentity, InferenceConfig
from tokret.configs import demo, gldv2_r101, image_folder
from tokret.errors import UserError

CONFIG = parse(demo.get_config().to_dict())
CONVERTED = {"model": {"trunk": "tiny", "head": "gem", "dtype": "float32"}}


@settings(deadline=None)  # files are written
@given(
    make=st.sampled_from([demo, gldv2_r101, image_folder]),
    head=st.sampled_from(["token", "gem", "rmac", "solar", "netvlad", "delg"]),
    rate=st.floats(0, 1e30),
    scales=st.lists(st.floats(0.05, 20), min_size=1, max_size=4),
    folder=st.text(st.characters(codec="utf-8")),
    seed=st.integers(0, 2**32),
    photos=st.none() | st.dictionaries(st.text(max_size=9), st.integers(0, 2**40)),
)
def test_json_round_trips(make, head, rate, scales, folder, seed, photos):
    tree = make.get_config(head).to_dict()
    tree["seed"] = seed
    tree["schedule"]["base_lr"] = rate
    tree["evaluation"]["scales"] = scales
    tree["run"]["data_dir"] = folder
    config = parse(tree)
    if photos is not None:
        dataset = DatasetIdentity(labels="5f", classes=7, photos=photos)
        config = dataclasses.replace(config, dataset=dataset)
    assert round_trip(config) == config


def round_trip(config):
    with tempfile.TemporaryDirectory() as folder:
        stored.save(config, Path(folder) / "config.json")
        return stored.load(Path(folder) / "config.json")


def test_a_converted_model_has_only_what_evaluation_needs():
    config = parse_saved(CONVERTED)
    assert type(config) is InferenceConfig
    assert config.evaluation.scales == (1.0, 2**0.5, 2**-0.5)
    assert round_trip(config) == config


def test_a_runs_config_is_recorded_once(tmp_path):
    path = tmp_path / "config.json"
    stored.record(CONFIG, path, None)
    assert stored.load(path) == CONFIG
    run = dataclasses.replace(CONFIG.run, log_every=9)
    mesh = dataclasses.replace(CONFIG.mesh, shard_optimiser=True)
    changed = dataclasses.replace(CONFIG, run=run, mesh=mesh)
    stored.record(changed, path, None)
    assert stored.load(path) == changed
    model = dataclasses.replace(CONFIG.model, dim=4)
    dataset = DatasetIdentity(labels="5f", classes=7, photos={"train": 9})
    for other, message in (
        (dataclasses.replace(CONFIG, seed=1), r"config\.seed: 0 -> 1"),
        (dataclasses.replace(CONFIG, model=model), r"config\.model\.dim: 256 -> 4"),
        (dataclasses.replace(CONFIG, dataset=dataset), r"config\.dataset: None -> "),
    ):
        with pytest.raises(UserError, match=f"workdir: .* another config .{message}"):
            stored.record(other, path, None)
    assert stored.load(path) == changed
    assert [file.name for file in tmp_path.iterdir()] == ["config.json"]


def lengthened(epochs, *restarts, **changes):
    schedule = dataclasses.replace(CONFIG.schedule, restarts=restarts)
    return dataclasses.replace(CONFIG, epochs=epochs, schedule=schedule, **changes)


def test_a_run_is_lengthened_by_restarts_of_its_schedule(tmp_path):
    path = tmp_path / "config.json"
    stored.record(CONFIG, path, None)
    for wanted, epochs in ((24, r"24"), (18, r"19, or more epochs")):
        hint = rf"add --config\.schedule\.restarts=16 --config\.epochs={epochs} \(warm"
        with pytest.raises(UserError, match=rf"16 -> {wanted}\).* {hint}"):
            stored.record(lengthened(wanted), path, None)
    run = dataclasses.replace(CONFIG.run, log_every=9)
    for longer in (lengthened(24, 16), lengthened(30, 16, 24, run=run)):
        stored.record(longer, path, None)
        stored.record(longer, path, None)  # resumes
        assert stored.load(path) == longer
    with pytest.raises(UserError, match=r"restarts=16,24,30 --config\.epochs=40 \("):
        stored.record(lengthened(40, 16, 24), path, None)
    for other in (
        lengthened(40, 16, 30),  # other rates before
        lengthened(40, 16, 24, 30, seed=1),
        lengthened(24, 16),
        CONFIG,
    ):
        with pytest.raises(UserError, match="belongs to a run with another config"):
            stored.record(other, path, None)


def test_the_runs_own_fields_are_named_as_options(tmp_path):
    own = ["--config.epochs=2", "--config.schedule.warmup_epochs=1.0"]
    own += ["--config.evaluation.scales=1.0,0.5", "--config.updates.ema_decay=0.5"]
    stored.record(load_config("demo", own), tmp_path / "config.json", None)
    with pytest.raises(UserError, match="the same fields: ") as caught:
        stored.record(CONFIG, tmp_path / "config.json", None)
    assert "further" not in str(caught.value)  # other fields differ
    _, _, options = str(caught.value).partition("the same fields: ")
    assert sorted(shlex.split(options)) == sorted(own)
    stored.record(
        load_config("demo", shlex.split(options)), tmp_path / "config.json", None
    )
    dataset = DatasetIdentity(labels="5f", classes=7, photos={"train": 9})
    stored.record(CONFIG, tmp_path / "new.json", None)
    with pytest.raises(UserError, match="the same fields$"):
        other = dataclasses.replace(CONFIG, dataset=dataset, seed=1)
        stored.record(other, tmp_path / "new.json", None)


def test_the_documented_way_to_lengthen_a_run(tmp_path, request):
    page = (request.config.rootpath / "docs" / "training.md").read_text()
    (command,) = re.findall(r"^tokret train .*", page, re.M)
    fields = [word for word in command.split() if word.startswith("--config.")]
    config = load_config("demo", fields)
    stored.record(CONFIG, tmp_path / "config.json", None)
    stored.record(config, tmp_path / "config.json", None)
    assert config.epochs == 24 and config.schedule.restarts == (16,)


def test_a_lost_file_is_restored_from_the_checkpoints_config(tmp_path):
    path = tmp_path / "config.json"
    with pytest.raises(UserError, match=r"config\.epochs: 3 -> 16"):
        stored.record(CONFIG, path, dataclasses.replace(CONFIG, epochs=3))
    stored.record(CONFIG, path, CONFIG)
    assert stored.load(path) == CONFIG


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "damaged"),
        ("[1]", "damaged .*Expected `object`"),
        ("\xff", "damaged"),
        ("[" * 100_000, "damaged"),
        ('{"model": {}}', "config.model.head is missing"),
        ('{"optimiser": 1}', "missing"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, text, message):
    path = tmp_path / "config.json"
    path.write_bytes(text.encode("latin1"))
    with pytest.raises(UserError, match=rf"config\.json: .*{message}"):
        stored.load(path)
    with pytest.raises(UserError, match="does not exist; is .* the folder of a run"):
        stored.load(tmp_path / "none" / "config.json")


def test_differences_are_by_field():
    ours, theirs = to_tree(CONFIG), to_tree(CONFIG)
    assert stored.differences(ours, theirs) == []
    theirs["model"]["dim"], theirs["new"] = 8, 1
    assert stored.differences(ours, theirs) == [
        "config.model.dim: 8 -> 256",
        "config.new: 1 -> None",
    ]
