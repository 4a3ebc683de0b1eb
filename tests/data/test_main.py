"""`python -m tokret.data`, as a user starts it."""

import inspect
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tokret.data import __main__ as program
from tokret.data.datasets import DATASETS, prepare_function
from tokret.errors import exit_status

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the program in this process: (status, output, errors)."""

    def start(*arguments):
        monkeypatch.setattr(sys, "argv", ["tokret.data", *map(str, arguments)])
        status = exit_status(program.main)
        return status, *capsys.readouterr()

    return start


@pytest.fixture
def hosts(oxford_folder, tmp_path):
    """Revisited Oxford of three photos, to be spoilt."""
    return shutil.copytree(oxford_folder, tmp_path / "hosts")


def test_prepare_ends_with_where_and_how_many(run, hosts, tmp_path):
    arguments = ("prepare", "roxford5k", f"--manual_dir={hosts}")
    arguments += (f"--data_dir={tmp_path / 'd'}",)
    done = subprocess.run(
        [sys.executable, "-m", "tokret.data", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
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
        ((), "are required: command"),
        (("prepare",), "are required: NAME"),
        (("prepare", "imagenet"), "invalid choice: 'imagenet'"),
        (("prepare", "gldv2", "--resize=big"), "invalid int value: 'big'"),
        (("prepare", "gldv2", "--resiz=5"), "unrecognized arguments: --resiz=5"),
        (("prepare", "image_folder"), "root is empty"),
        (("prepare", "roxford5k", "--resize=512"), "unrecognized arguments"),
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
    assert "error: roxford5k: 1 of 3 photos are broken: all_souls_000002.jpg" in err
    status, out, err = run(*arguments, "--skip_bad")
    assert status == 0 and "(query 1, database 1)" in out
    assert "warning: roxford5k: 1 photos skipped" in err


def test_a_data_dir_that_cannot_be_written_is_named(run, hosts, tmp_path):
    (tmp_path / "file").write_text("")
    data = f"--data_dir={tmp_path / 'file'}"
    status, _, err = run("prepare", "roxford5k", f"--manual_dir={hosts}", data)
    assert status == 2 and err.startswith("error: ") and "file" in err


@pytest.mark.parametrize("name", DATASETS)
def test_every_field_has_a_flag_and_its_help(name, capsys):
    with pytest.raises(SystemExit) as end:
        program._flags().parse_args(["prepare", name, "--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    function = prepare_function(name)
    words = program.argument_help(getattr(function, "func", function))
    for field in inspect.signature(function).parameters:
        assert f"--{field}" in shown
        assert words[field]
