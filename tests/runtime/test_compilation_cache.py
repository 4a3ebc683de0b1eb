import os
import subprocess
import sys

import pytest

from tokret.errors import UserError
from tokret.io.remote import objects
from tokret.runtime.compilation_cache import VARIABLE, keep_compiled

PROGRAM = """
import sys
from tokret.runtime.compilation_cache import keep_compiled
keep_compiled(sys.argv[1])
import jax
jax.config.update("jax_log_compiles", True)
jax.jit(lambda x: x * 2 + 1)(3.0)
"""


def start(folder, **variables):
    environment = {k: v for k, v in os.environ.items() if k != VARIABLE} | variables
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder)],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return {path.name for path in folder.rglob("*-cache")}, done.stderr


def test_a_second_start_takes_what_the_first_one_compiled(tmp_path):
    first, _ = start(tmp_path / "cache")
    assert first
    second, log = start(tmp_path / "cache")
    assert second == first and "Persistent compilation cache hit" in log


def test_the_environment_comes_first_and_nothing_keeps_nothing(tmp_path):
    kept, _ = start(tmp_path / "ours", **{VARIABLE: str(tmp_path / "theirs")})
    assert not kept and not (tmp_path / "ours").exists()


def test_a_folder_that_jax_has_already_comes_first(tmp_path):
    code = """
import sys, jax
jax.config.update("jax_compilation_cache_dir", sys.argv[1])
from tokret.runtime.compilation_cache import keep_compiled
keep_compiled(sys.argv[2])
assert jax.config.jax_compilation_cache_dir == sys.argv[1]
"""
    environment = {k: v for k, v in os.environ.items() if k != VARIABLE}
    folders = str(tmp_path / "theirs"), str(tmp_path / "ours")
    subprocess.run([sys.executable, "-c", code, *folders], env=environment, check=True)
    assert not (tmp_path / "ours").exists()


def test_a_folder_that_cannot_be_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"compilation_cache"):
        keep_compiled(str(tmp_path / "file"))
    keep_compiled("")


def test_a_file_is_named_also_where_jax_has_a_folder(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"compilation_cache: .*file is a file"):
        keep_compiled(str(tmp_path / "file"))


@pytest.mark.parametrize("name", ["gcs", "s3"])
def test_a_bucket_holds_what_was_compiled(name, request, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    url = f"{request.getfixturevalue(name).url}/compiled"
    code = PROGRAM.replace("sys.argv[1]", repr(url))
    logs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        for _ in range(2)
    ]
    assert all(log.returncode == 0 for log in logs), logs
    hits = ["Persistent compilation cache hit" in log.stderr for log in logs]
    assert hits == [False, True]
    names = [entry.rpartition("/")[2] for entry in objects.list_objects(url)]
    assert "README" in names and any(entry.endswith("-cache") for entry in names)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("memory://bucket/x", "memory://bucket/x cannot be used; name a local folder"),
        ("ftp://host/x", "'ftp://host/x': ftp:// cannot be used"),
    ],
)
def test_other_urls_are_refused(url, message, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(UserError, match=f"^compilation_cache: {message}"):
        keep_compiled(url)


def test_a_bucket_that_is_missing_is_named(gcs, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(UserError, match="gs://none/x.*there is no such bucket"):
        keep_compiled("gs://none/x")
