"""tokret data, as a user starts it."""

import functools
import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tokret.config.datasets import DATASETS as CONFIGS
from tokret.data.datasets import DATASETS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(tokret):
    return functools.partial(tokret, "data")


@pytest.fixture
def hosts(oxford_folder, tmp_path):
    """Revisited Oxford of three photos, to be spoilt."""
    return shutil.copytree(oxford_folder, tmp_path / "hosts")


def test_prepare_ends_with_where_and_how_many(run, hosts, tmp_path):
    arguments = ("prepare", "roxford5k", f"--manual_dir={hosts}")
    arguments += (f"--data_dir={tmp_path / 'd'}",)
    done = subprocess.run(
        [sys.executable, "-m", "tokret", "data", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    out, err = done.stdout, done.stderr
    assert done.returncode == 0, err
    assert out.startswith("roxford5k: 3 photos (query 1, database 2) in ")
    (folder,) = (tmp_path / "d").rglob("dataset_info.json")
    assert out.strip().endswith(str(folder.parent))
    assert err.startswith("preparing roxford5k: 3 photos into ")
    status, again, err = run(*arguments)
    assert (status, again, err) == (0, out, "")


def test_errors_are_one_line_and_status_2(run, hosts, tmp_path):
    data = f"--data_dir={tmp_path / 'd'}"
    for arguments, message in (
        ((), "needs one of: prepare, check"),
        (("prepare",), "needs one of: gldv2, image_folder"),
        (("prepare", "imagenet"), "'imagenet' is not a command"),
        (
            ("prepare", "gldv2", "--resize=big"),
            "--resize: 'big' is not a whole number",
        ),
        (
            ("prepare", "gldv2", "--resiz=5"),
            "--resiz is not an option; did you mean --resize?",
        ),
        (("prepare", "image_folder", data), "--root: "),
        (("check", "image_folder", f"--root={hosts}", "--workers=-1"), "--workers is"),
        (("prepare", "roxford5k", "--resize=512"), "--resize is not an option"),
        (("prepare", "gldv2", data), "no prepared gldv2"),
        (("prepare", "rparis6k", data, f"--manual_dir={hosts}"), "no photos of Paris"),
    ):
        status, out, err = run(*arguments)
        assert (status, out) == (2, ""), arguments
        assert err.startswith("error: ") and len(err.splitlines()) == 1, err
        assert message in err


def test_bad_photos_are_an_error_or_skipped(run, hosts, tmp_path, jpeg, write_tar):
    files = {f"all_souls_{i:06d}.jpg": jpeg(i) for i in range(2)}
    files["all_souls_000002.jpg"] = b"<html>"
    write_tar(hosts / "oxbuild_images.tgz", files, "w:gz")
    arguments = ("prepare", "roxford5k", f"--manual_dir={hosts}")
    arguments += (f"--data_dir={tmp_path / 'd'}",)
    status, _, err = run(*arguments)
    assert status == 2
    assert "error: roxford5k: 1 of 3 photos cannot be used: all_souls_000002.jpg" in err
    assert err.endswith("(a web page, not a photo); replace them, or set --skip_bad\n")
    status, out, err = run(*arguments, "--skip_bad")
    assert status == 0 and "(query 1, database 1)" in out
    assert "warning: roxford5k: 1 photo skipped" in err


def test_a_single_class_is_noted(run, tmp_path, jpeg):
    (tmp_path / "photos" / "all").mkdir(parents=True)
    for seed in range(3):
        (tmp_path / "photos" / "all" / f"{seed}.jpg").write_bytes(jpeg(seed))
    arguments = ("prepare", "image_folder", f"--root={tmp_path / 'photos'}")
    status, out, _ = run(*arguments, f"--data_dir={tmp_path / 'd'}")
    assert status == 0 and "are of one class; it cannot be trained on" in out


def test_a_data_dir_that_cannot_be_written_is_named(run, hosts, tmp_path):
    (tmp_path / "file").write_text("")
    data = f"--data_dir={tmp_path / 'file'}"
    status, _, err = run("prepare", "roxford5k", f"--manual_dir={hosts}", data)
    assert status == 2 and err.startswith("error: ") and "file" in err


@pytest.mark.parametrize("name", DATASETS)
def test_every_field_has_an_option_and_its_help(name, run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    status, out, _ = run("prepare", name, "--help")
    assert status == 0
    for field in inspect.signature(CONFIGS[name]).parameters:
        given = field != "name"
        assert bool(re.search(rf"--(no_)?{field}\b( \S+)?[\s│]+\w", out)) == given, (
            field
        )


def test_a_data_dir_that_is_no_text_is_refused(run, photo_folder, refused, tmp_path):
    data = f"--data_dir={tmp_path}/\udcff"
    result = run("prepare", "image_folder", f"--root={photo_folder}", data)
    refused(result, "--data_dir: ", "is not text in UTF-8")
    assert not list(tmp_path.iterdir())
