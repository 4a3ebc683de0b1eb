"""The training program, started as a user starts it."""

import json
import math
import shutil
import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest

import train
from tokret.config.parsing import parse
from tokret.configs import demo
from tokret.errors import UserError
from tokret.training.checkpoint_digests import UnreadableError
from tokret.training.checkpoints import list_steps
from tokret.training.weights import find_checkpoint, load_weights

STEPS = 12  # 3 epochs of 32 photos in batches of 8


def lines(workdir, kind):
    text = (workdir / "metrics.jsonl").read_text()
    found = map(json.loads, text.splitlines())
    return [line for line in found if line["kind"] == kind]


@pytest.mark.slow
def test_a_run_writes_checkpoints_and_metrics(trained):
    assert list_steps(trained) == [4, 8, 12]
    config = json.loads((trained / "config.json").read_text())
    assert config["model"]["trunk"] == "tiny" and config["epochs"] == 3
    train, validation = lines(trained, "train"), lines(trained, "validation")
    assert [li["step"] for li in train] == [2, 4, 6, 8, 10, 12]
    assert [li["step"] for li in validation] == [4, 8, 12]
    for line in train:
        assert np.isfinite(line["loss"]) and line["images_per_second"] > 0
        assert 0 <= line["top1"] <= line["top5"] <= 1
        assert line["learning_rate"] >= 0
    assert list((trained / "tensorboard").iterdir())


@pytest.mark.slow
def test_a_workdir_of_another_config_is_refused(
    program, refused, demo_arguments, trained
):
    before = (trained / "config.json").read_bytes()
    arguments = (*demo_arguments, f"--workdir={trained}", "--config.seed=1")
    refused(program("train.py", *arguments), "config.seed: 0 -> 1", "--workdir")
    assert (trained / "config.json").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ("--config", "--workdir")),
        (("--config=configs/none.py", "--workdir=w"), ("configs/none.py",)),
        (
            ("--config=configs/none.py", "--workdir=w", "--config.data.root=r"),
            ("configs/none.py is not a file",),
        ),
        (("--config=configs/demo.py", "--workdir=w", "--wrkdir=x"), ("wrkdir",)),
        (
            ("--config=configs/demo.py", "--workdir=w", "--config.modl.dim=3"),
            ("modl",),
        ),
        (
            ("--config=configs/demo.py", "--workdir=w", "--config.model.dim=a"),
            ("dim", "'a'"),
        ),
        (("--config=configs/demo.py", "--workdir=w", "extra"), ("extra",)),
        (("--config=configs/gldv2_r50.py", "--workdir=w"), ("config.init.trunk is",)),
        (("--config=configs/gldv2_r101.py", "--workdir=w"), ("config.init.trunk is",)),
        (
            (
                "--config=configs/image_folder.py",
                "--workdir=w",
                "--config.run.data_dir=/nowhere",
            ),
            ("config.data.root: /nowhere contains no prepared image_folder",),
        ),
        (
            (
                "--config=configs/image_folder.py",
                "--workdir=w",
                "--config.data.root=/nowhere",
            ),
            ("/nowhere",),
        ),
        (
            ("--config=configs/demo.py", "--workdir=w", "--config.mesh.model=3"),
            ("mesh",),
        ),
        (("--config=README.md", "--workdir=w"), ("README.md", "neither FILE.py")),
        (("--config=configs/demo.py", "--workdir=setup.cfg"), ("setup.cfg",)),
    ],
)
def test_bad_command_lines(program, refused, tmp_path, arguments, words):
    arguments = [
        f"--workdir={tmp_path}/w" if a == "--workdir=w" else a for a in arguments
    ]
    refused(program("train.py", *arguments), *words)
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("batch_size", 0),
        ("epochs", -1),
        ("seed", -1),
        ("augmentation.size", 0),
        ("augmentation.min_area", 2.0),
        ("model.dropout", 1.5),
        ("model.query_init_std", math.nan),
        ("arcface.margin", -9.0),
        ("optimiser.weight_decay", -1.0),
        ("schedule.base_lr", math.nan),
        ("schedule.warmup_epochs", math.inf),
        ("evaluation.scales", []),
        ("evaluation.longest_side", 0),
        ("run.log_every", 0),
        ("run.keep", "three"),
        ("data.landmarks", 0),
        ("data.name", ["demo"]),
        ("model.dmi", 3),
    ],
)
def test_bad_values_are_named_before_anything_is_written(tmp_path, field, value):
    config = demo.get_config().to_dict()
    config["run"]["data_dir"] = str(tmp_path / "data")
    # What is checked after the photos are there is checked on few of them.
    small = {"landmarks": 2, "photos": 16, "benchmark_landmarks": 1, "distractors": 0}
    config["data"].update(small, queries_per_landmark=1, longest_side=32)
    *group, name = field.split(".")
    (config[group[0]] if group else config)[name] = value
    with pytest.raises(UserError, match=name):
        train.train(parse(config), tmp_path / "w")
    assert not (tmp_path / "w").exists()


@pytest.mark.slow
def test_other_photos_than_the_run_began_with_are_refused(
    program, refused, photo_folder, data_dir, tmp_path
):
    root, workdir = tmp_path / "photos", tmp_path / "run"
    shutil.copytree(photo_folder, root)
    arguments = (
        "--config=configs/image_folder.py:gem",
        f"--config.data.root={root}",
        f"--config.run.data_dir={data_dir}",
        f"--workdir={workdir}",
        "--config.epochs=2",
        "--config.batch_size=8",
        "--config.schedule.warmup_epochs=1.0",
        "--config.augmentation.size=32",
    )
    status, out, err = program("train.py", *arguments)
    assert status == 0, out + err
    (root / "ash").rename(root / "alder")
    refused(program("train.py", *arguments), "config.dataset.labels")


def test_weights_that_are_missing_are_named_before_photos_are_prepared(
    program, refused, tmp_path
):
    arguments = (
        "--config=configs/demo.py",
        f"--config.run.data_dir={tmp_path / 'data'}",
        "--config.init.checkpoint=/none",
        f"--workdir={tmp_path / 'run'}",
    )
    refused(program("train.py", *arguments), "config.init.checkpoint is '/none'")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_run_begins_with_another_ones_trunk(
    program, refused, trained, demo_arguments, tmp_path
):
    workdir = tmp_path / "run"
    arguments = (
        "--config=configs/demo.py:gem",
        *demo_arguments[1:],
        f"--config.init.trunk={trained}",
        "--config.epochs=2",
        "--config.schedule.base_lr=0.0",  # nothing is learned: what began is what ends
        "--config.schedule.warmup_init_lr=0.0",
        f"--workdir={workdir}",
    )
    status, out, err = program("train.py", *arguments)
    assert status == 0, out + err
    runs = (workdir, trained)
    ours, theirs = (load_weights(find_checkpoint(run))[0] for run in runs)
    jax.tree.map(
        np.testing.assert_array_equal, ours["model"]["trunk"], theirs["model"]["trunk"]
    )
    nowhere = tmp_path / "nowhere"
    wrong = (*arguments[:-1], "--config.init.trunk=/none", f"--workdir={nowhere}")
    refused(
        program("train.py", *wrong), "config.init.trunk is '/none'", "folder of a run"
    )
    assert not nowhere.exists()


@pytest.mark.slow
def test_after_sigterm_it_saves_and_resumes_as_if_uninterrupted(
    start, program, trained, everything, demo_arguments, tmp_path
):
    workdir = tmp_path / "run"
    arguments = ("train.py", *demo_arguments, f"--workdir={workdir}")
    # Before the first step.
    signalled = ("SIGTERM", "os:replace", workdir / "config.json", 1)
    process = start(*arguments, signalled=signalled)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 75, out + err
    assert f"stopped after step 1 of {STEPS}" in err and "Traceback" not in err
    assert list_steps(workdir) == [1]
    status, out, err = program(*arguments)
    assert status == 0, out + err
    jax.tree.map(
        np.testing.assert_array_equal, everything(workdir), everything(trained)
    )


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["a flipped bit", "without its list of arrays"])
def test_a_damaged_checkpoint_is_moved_away(
    program, trained, everything, demo_arguments, tmp_path, damage
):
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    newest = workdir / "checkpoints" / str(STEPS)
    if damage == "a flipped bit":
        path = max(newest.rglob("d/*"), key=lambda path: path.stat().st_size)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0x40
        path.write_bytes(content)
    else:
        (newest / "state" / "_METADATA").unlink()
    status, out, err = program("train.py", *demo_arguments, f"--workdir={workdir}")
    assert status == 0, out + err
    assert "warning: " in err and f"checkpoints/{STEPS}" in err and "damaged" in err
    assert f"steps 8 to {STEPS}" in out
    jax.tree.map(
        np.testing.assert_array_equal, everything(workdir), everything(trained)
    )


@pytest.mark.slow
def test_steps_are_traced(program, refused, demo_arguments, tmp_path):
    workdir = tmp_path / "run"
    arguments = (*demo_arguments, f"--workdir={workdir}")
    status, out, err = program("train.py", *arguments, "--profile=2:3")
    assert status == 0, out + err
    assert list((workdir / "profile").rglob("*.xplane.pb"))
    refused(program("train.py", *arguments, "--profile=3:2"), "--profile: 3:2", "10:20")


@pytest.mark.slow
def test_a_finished_run_is_trained_further(
    program, refused, trained, everything, demo_arguments, tmp_path
):
    further = (*demo_arguments, "--config.epochs=5")
    restarts = "--config.schedule.restarts=3"
    least = "--config.epochs=5, or more epochs"
    runs = [tmp_path / name for name in ("once", "again", "at once")]
    for workdir in runs[:2]:
        shutil.copytree(trained, workdir)
    status, out, err = program("train.py", *demo_arguments, f"--workdir={runs[0]}")
    assert status == 0 and f"finished: 3 epochs, {STEPS} steps" in out, out + err
    assert f"further add {restarts} {least}\n" in out
    message = f"add {restarts} --config.epochs=5 ("
    refused(program("train.py", *further, f"--workdir={runs[0]}"), message)
    for workdir in runs:
        status, out, err = program(
            "train.py", *further, restarts, f"--workdir={workdir}"
        )
        assert status == 0, out + err
        assert list_steps(workdir)[-1] == 20
    rates = [line["learning_rate"] for line in lines(runs[0], "train")]
    assert rates[:2] == rates[6:8] and len(rates) == 10  # it restarts after step 12
    once, again, at_once = map(everything, runs)
    for other in (again, at_once):
        jax.tree.map(np.testing.assert_array_equal, once, other)


@pytest.mark.slow
def test_a_folder_removed_while_it_trains(start, refused, demo_arguments, tmp_path):
    workdir = tmp_path / "run"
    arguments = (*demo_arguments, "--config.epochs=99999", f"--workdir={workdir}")
    process = start("train.py", *arguments)
    deadline = time.monotonic() + 600
    while not list_steps(workdir) and time.monotonic() < deadline:
        time.sleep(0.01)
        assert process.poll() is None, process.communicate()
    moved = workdir.rename(tmp_path / "moved")
    out, err = process.communicate(timeout=600)
    wrong = (
        "--workdir: ",
        f"was moved to {moved}",
        f"{moved}/checkpoints has those of step",
    )
    refused((process.returncode, out, err), *wrong)


@pytest.mark.slow
def test_more_steps_than_can_be_counted(program, refused, demo_arguments, tmp_path):
    arguments = (*demo_arguments, f"--workdir={tmp_path / 'w'}")
    end = program("train.py", *arguments, "--config.epochs=4294967296")
    refused(end, "config.epochs is 4294967296; it must be at most 536870911")
    assert not (tmp_path / "w").exists()


def test_without_a_whole_checkpoint_nothing_is_moved(tmp_path):
    for step in (4, 8):
        (tmp_path / "checkpoints" / str(step)).mkdir(parents=True)

    def restore(abstract, step):
        raise UnreadableError(f"{step}: damaged (torn)", "use another checkpoint")

    with pytest.raises(UserError) as caught:
        train.restore_newest(None, tmp_path, SimpleNamespace(restore=restore))
    assert str(caught.value) == (
        f"workdir: no checkpoint of {tmp_path} is whole: 8: damaged (torn); 4: damaged "
        f"(torn); name another workdir, or move {tmp_path}/checkpoints away to start "
        "again from step 0"
    )
    assert list_steps(tmp_path) == [4, 8]


def test_no_validation_photo_can_be_decoded():
    batch = {"images": 0, "labels": 0, "weights": 0}
    sums = dict.fromkeys(("loss", "top1", "top5", "count"), 0.0)
    setup = SimpleNamespace(programs=SimpleNamespace(validate=lambda *_: sums))
    photos = SimpleNamespace(
        validation=lambda: ([batch], SimpleNamespace(report=lambda: 2)),
        dataset=SimpleNamespace(records=lambda split: [b"", b""]),
    )
    with pytest.raises(UserError, match="none of the 2 validation photos can be"):
        train.validate(setup, None, photos)
