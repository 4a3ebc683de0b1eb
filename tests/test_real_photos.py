"""Photos as people have them, through both programs: Google Landmarks v2's tars, and
groceries of which some classes are never trained on."""

import json
import shutil

import pytest

SMALL = (
    "--config.epochs=2",
    "--config.batch_size=8",
    "--config.schedule.warmup_epochs=1.0",
    "--config.augmentation.size=32",
    "--config.evaluation.longest_side=48",
    "--config.evaluation.scales=(1.0,)",
    "--config.evaluation.canvases=1",
    "--config.run.log_every=1",
)


@pytest.fixture(scope="module")
def groceries(shared, tmp_path_factory):
    """Ten photos of each of four classes to train on and of three others."""
    root = tmp_path_factory.mktemp("groceries") / "photos"
    unseen = []
    for part, count in (("train", 4), ("unseen", 3)):
        folders = sorted((shared / "grocery" / part).iterdir())[:count]
        for folder in folders:
            (root / folder.name).mkdir(parents=True)
            for photo in sorted(folder.rglob("*.jpg"))[:10]:
                (root / folder.name / photo.name).symlink_to(photo)
        unseen = [folder.name for folder in folders]
    (root.parent / "unseen.txt").write_text("\n".join(unseen))
    return root


@pytest.mark.slow
def test_classes_that_were_never_seen_are_found_among_each_other(
    program, groceries, tmp_path
):
    workdir, data_dir = tmp_path / "run", tmp_path / "data"
    arguments = (
        "--config=configs/image_folder.py:gem",
        f"--config.data.root={groceries}",
        f"--config.data.benchmark_classes={groceries.parent / 'unseen.txt'}",
        f"--config.run.data_dir={data_dir}",
        f"--workdir={workdir}",
        *SMALL,
    )
    status, out, err = program("train.py", *arguments)
    assert status == 0, out + err
    assert "32 photos of 4 classes" in out
    status, out, err = program("eval.py", f"--workdir={workdir}", "--baselines")
    assert status == 0, out + err
    found = json.loads((workdir / "eval" / "results.json").read_text())
    ours = found["benchmarks"]["image_folder"]["all"]
    assert {"mAP", "recall@1"} <= set(ours) and ours["mAP"] > 0.2
    # The same as those photos alone, as a folder.
    alone = tmp_path / "alone"
    for name in (groceries.parent / "unseen.txt").read_text().split():
        shutil.copytree(groceries / name, alone / name)
    flag = f"--image_folder={alone}"
    status, out, err = program("eval.py", f"--workdir={workdir}", flag)
    assert status == 0, out + err
    again = json.loads((workdir / "eval" / "results.json").read_text())
    assert again["benchmarks"]["alone"]["all"] == pytest.approx(ours, abs=1e-6)


@pytest.mark.slow
def test_landmarks_are_trained_on_from_their_tars(program, gldv2_folder, tmp_path):
    arguments = (
        "--config=configs/gldv2_r101.py:gem",
        "--config.init.trunk=",
        f"--config.data.manual_dir={gldv2_folder}",
        "--config.data.resize=40",
        "--config.model.trunk=tiny",
        "--config.model.dim=16",
        f"--config.run.data_dir={tmp_path / 'data'}",
        f"--workdir={tmp_path / 'run'}",
        *SMALL,
    )
    status, out, err = program("train.py", *arguments)
    assert status == 0, out + err
    # One photo of each of three classes is for validation.
    assert "gldv2: 9 photos of 3 classes" in out and "epoch 2  validation" in out
    (folder,) = (tmp_path / "data" / "gldv2").glob("clean-40px-q90-*")
    # What was prepared is enough for another run.
    rest = [a for a in arguments if "manual_dir" not in a and "workdir" not in a]
    again = program("train.py", *rest, f"--workdir={tmp_path / 'other'}")
    assert again[0] == 0, again[2]
    assert "preparing" in err and "preparing" not in again[2]


@pytest.mark.slow
def test_photos_that_rot_are_skipped_and_reported(
    program, refused, photo_folder, tmp_path
):
    data_dir = tmp_path / "data"
    arguments = (
        "--config=configs/image_folder.py:gem",
        f"--config.data.root={photo_folder}",
        f"--config.run.data_dir={data_dir}",
        *SMALL,
        "--config.run.checkpoint_every=1",
    )
    prepared = program(
        "data", "prepare", "image_folder", f"--root={photo_folder}",
        f"--data_dir={data_dir}",
    )  # fmt: skip
    assert prepared[0] == 0, prepared[2]
    photos = {p: p.read_bytes() for p in photo_folder.rglob("*.jpg")}

    def rot(split, count):
        (path,) = data_dir.rglob(f"*-{split}.array_record*")
        content = bytearray(path.read_bytes())
        there = [data for data in photos.values() if data in content]
        for data in there[:count]:
            at = content.index(data) + 100
            content[at : at + 50] = bytes(50)
        path.write_bytes(content)

    rot("train", 1)
    rot("validation", 1)
    whole = program("train.py", *arguments, f"--workdir={tmp_path / 'a'}")
    assert whole[0] == 0, whole[2]
    assert "warning: 1 photo skipped, the first is: record " in whole[1]
    lines = (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()
    trained = [line for line in map(json.loads, lines) if line["kind"] == "train"]
    assert sum(line["skipped"] for line in trained) in (1, 2)

    rot("train", 99)
    result = program("train.py", *arguments, f"--workdir={tmp_path / 'b'}")
    refused(result, "cannot be decoded", "record ")


@pytest.mark.slow
def test_a_run_is_measured_on_a_prepared_benchmark(
    program, refused, trained, oxford_folder, tmp_path
):
    data = f"--data_dir={tmp_path}"
    command = ("eval.py", f"--workdir={trained}", "--benchmark=roxford5k", data)
    refused(program(*command), "roxford5k", "manual_dir")
    made = program(
        "data", "prepare", "roxford5k", f"--manual_dir={oxford_folder}", data
    )
    assert made[0] == 0, made[2]
    status, out, err = program(*command)
    assert status == 0, out + err
    found = json.loads((trained / "eval" / "results.json").read_text())
    # Of two photos one is right and the other is junk.
    assert found["benchmarks"]["roxford5k"]["medium"]["mAP"] == 1
