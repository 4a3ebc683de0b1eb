"""Writes results.json: numbers, with the environment in which they were measured.

The released model moved by up to 4.5 points between two machines, so a number without
commit, versions, device and precision is not a result.
"""

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import msgspec

import tokret
from tokret.errors import UserError
from tokret.io.atomic_files import write_whole
from tokret.io.json_files import read_json

MAX_BYTES = 2**30  # of results.json, which may have the AP of each of many queries


class Results(msgspec.Struct, omit_defaults=True):
    """The content of results.json."""

    # by name, the numbers as fractions; null where nothing was measured
    benchmarks: dict[str, Any]
    environment: dict[str, Any]  # what `environment` collects
    # by system, its own `benchmarks`, measured in the same run
    baselines: dict[str, dict[str, Any]] = {}


def write_results(path: Path, results: Results, *, merge: bool = False) -> None:
    """Writes results.json, atomically; NaN becomes null.

    With `merge` the numbers of other benchmarks in the file are kept, if they were
    measured in the same environment.

    Raises:
      UserError: the file cannot be written.
    """
    if merge:
        results = _merged(path, results)
    # Numbers of NumPy become Python's.
    encoded = msgspec.json.encode(results, enc_hook=float)
    write_whole(path, msgspec.json.format(encoded, indent=2) + b"\n")


def read_results(path: Path) -> Results:
    """Reads a file that `write_results` wrote.

    Raises:
      UserError: the file cannot be read, or has other content.
    """
    found: Results = read_json(path, Results, "remove it and evaluate again", MAX_BYTES)
    return found


def _merged(path: Path, new: Results) -> Results:
    try:
        old = read_results(path)
    except UserError:  # missing, or damaged
        return new
    if old.environment != new.environment:
        return new
    # What was measured last is last.
    kept = {k: v for k, v in old.benchmarks.items() if k not in new.benchmarks}
    baselines = {
        name: old.baselines.get(name, {}) | new.baselines.get(name, {})
        for name in old.baselines | new.baselines
    }
    return Results(kept | new.benchmarks, new.environment, baselines)


def environment(precision: str) -> dict[str, Any]:
    """Collects what a number depends on besides weights and data.

    That is commit, versions, platform, device (kind, count and backend) and precision,
    how descriptors were computed, such as "float32".
    """
    device = jax.devices()[0]
    packages = ("jax", "jaxlib", "flax", "numpy")
    versions = {name: metadata.version(name) for name in packages}
    return {
        "commit": commit(Path(tokret.__file__).resolve().parents[1]),
        "versions": {
            "tokret": tokret.__version__,
            "python": platform.python_version(),
            **versions,
        },
        "platform": platform.platform(),
        "device": {
            "kind": device.device_kind,
            "count": jax.device_count(),
            "backend": device.platform,
        },
        "precision": precision,
    }


def commit(root: Path) -> str:
    """The git commit of a checkout whose top folder is `root`.

    It ends in "-dirty" where tracked files were changed, and is "unknown" where `root`
    is not the top of a checkout or git is not installed.
    """
    try:
        # An installed package may be inside some other project's checkout.
        if Path(_git(root, "rev-parse", "--show-toplevel")) != root.resolve():
            return "unknown"
        head = _git(root, "rev-parse", "HEAD")
        changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return f"{head}-dirty" if changes else head


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=30
    )
    return done.stdout.strip()
