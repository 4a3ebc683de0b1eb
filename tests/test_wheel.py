"""The wheel, built and installed outside the clone, used from another folder."""

import json
import os
import shutil
import site
import subprocess
import sys
import venv
import zipfile

import pytest

import tokret

LINKS = {
    "tokret/commands/train.py": "../../train.py",
    "tokret/commands/eval.py": "../../eval.py",
    "tokret/configs": "../configs",
}


@pytest.fixture(scope="module")
def wheel(request, tmp_path_factory):
    """A wheel of a copy of the sources, without what earlier builds left there."""
    copy, folder = (tmp_path_factory.mktemp(name) for name in ("sources", "wheel"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "train.py"):
        shutil.copy(request.config.rootpath / name, copy)
    shutil.copy(request.config.rootpath / "eval.py", copy)
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("tokret", "configs"):
        source = request.config.rootpath / name
        shutil.copytree(source, copy / name, symlinks=True, ignore=ignore)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", f"--wheel-dir={folder}"]
    done = subprocess.run([*build, str(copy)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, environment, tmp_path_factory):
    """Returns a function that runs tokret of a fresh environment: its output.

    The environment has the wheel, and the dependencies of the one that runs the tests.
    """
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", f"--python={python}", "install", "--no-deps"]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True)
    (own,) = (folder / "venv").glob("lib/python*/site-packages")
    (own / "dependencies.pth").write_text("\n".join(site.getsitepackages()))
    variables = {k: v for k, v in environment.items() if k != "PYTHONPATH"}

    def run(*arguments):
        done = subprocess.run(
            [str(python.parent / "tokret"), *map(str, arguments)],
            cwd=folder,
            env=variables,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.mark.parametrize("name", LINKS)
def test_programs_and_configs_are_in_the_package_as_links(request, name):
    """An editor that replaces the links by copies would leave two sources."""
    assert os.readlink(request.config.rootpath / name) == LINKS[name]


@pytest.mark.slow
def test_the_wheel_holds_the_package_alone(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    folders = {name.split("/")[0] for name in names}
    assert folders == {"tokret", f"tokret-{tokret.__version__}.dist-info"}
    assert {f"tokret/{name}" for name in ("py.typed", "commands/train.py")} <= names
    assert {"tokret/commands/eval.py", "tokret/configs/demo.py"} <= names
    assert "tokret/retrieval/report/report.js" in names


@pytest.mark.slow
def test_an_installed_wheel_trains_evaluates_and_searches(
    installed, demo_arguments, photo_folder, tmp_path
):
    assert installed("--version") == f"tokret {tokret.__version__}\n"
    found = json.loads(installed("info", "--json"))
    assert "/venv/" in found["folder"]
    run, index = tmp_path / "run", tmp_path / "index"
    installed("train", "--config=demo", *demo_arguments[1:], f"--workdir={run}")
    assert "synthetic_landmarks" in installed("eval", f"--workdir={run}")
    assert (run / "eval" / "report.html").is_file()
    installed("index", photo_folder, f"--checkpoint={run}", f"--index={index}")
    photo, page = photo_folder / "ash" / "photo 1.jpg", tmp_path / "page.html"
    out = installed("query", photo, f"--index={index}", f"--report={page}")
    assert out.splitlines()[0].endswith("ash/photo 1.jpg") and page.is_file()
