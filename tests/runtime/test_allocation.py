import os
import subprocess
import sys

import pytest

from tokret.runtime import allocation
from tokret.runtime.allocation import allocated, has_accelerator

# Page faults of a megabyte's pages are 256.
PROGRAM = """
import resource, sys
import numpy as np
from tokret.runtime.allocation import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(2**26, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_pages_are_allocated_once():
    def faults(what):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, what],
            capture_output=True,
            text=True,
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
        )
        assert done.returncode == 0, done.stderr
        return int(done.stdout)

    assert faults("keep") < 100
    # Huge pages, where the system gives them, are few.
    assert faults("leave") > faults("keep")


@pytest.mark.skipif(allocated() is None, reason="glibc's since 2.33")
def test_only_what_is_in_use_counts():
    before = allocated()
    held = bytearray(2**25)
    assert 2**25 <= allocated() - before < 2**26
    del held
    assert allocated() - before < 2**24


def test_what_the_environment_chooses_comes_first(monkeypatch):
    for platforms, found in (("cpu", False), ("cuda", True), ("tpu,cpu", True)):
        monkeypatch.setenv("JAX_PLATFORMS", platforms)
        assert has_accelerator() == found


@pytest.mark.parametrize(
    ("libtpu", "plugin", "node", "chosen"),
    [
        (True, False, None, "cpu"),
        (False, False, None, None),
        (True, True, None, None),
        (True, False, "accel0", None),
        (True, False, "vfio/0", None),
        (True, False, "nvidia0", "cpu"),  # without a plugin for it
    ],
)
def test_libtpu_is_not_loaded_where_no_tpu_is(
    monkeypatch, tmp_path, libtpu, plugin, node, chosen
):
    monkeypatch.setenv("JAX_PLATFORMS", "")  # restored at the end
    monkeypatch.delenv("JAX_PLATFORMS")
    monkeypatch.setattr(allocation, "_has_libtpu", lambda: libtpu)
    monkeypatch.setattr(allocation, "_plugins", lambda: plugin)
    if node:
        (tmp_path / node).parent.mkdir(exist_ok=True)
        (tmp_path / node).touch()
    allocation.avoid_missing_tpu(tmp_path)
    assert os.environ.get("JAX_PLATFORMS") == chosen


@pytest.mark.parametrize(
    ("node", "found"),
    [("accel0", True), ("vfio/0", True), ("vfio/vfio", False), ("nvidia0", True)],
)
@pytest.mark.parametrize("plugin", [True, False])
def test_a_plugin_without_a_device_is_no_accelerator(
    monkeypatch, tmp_path, node, found, plugin
):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setattr(allocation, "has_plugin", lambda: plugin)
    assert not has_accelerator(tmp_path)
    (tmp_path / node).parent.mkdir(exist_ok=True)
    (tmp_path / node).touch()
    assert has_accelerator(tmp_path) == (plugin and found)
