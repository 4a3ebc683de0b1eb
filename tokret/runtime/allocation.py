"""Accelerators that jax may find, and memory that XLA's CPU programs free."""

import ctypes
import importlib.util
import os
import pkgutil
import sys
from pathlib import Path

# Names of devices: TPUs, NVIDIA's GPUs, also under WSL, AMD's, Intel's.
_TPU_DEVICES = ("accel*", "vfio/[0-9]*")
_DEVICES = (*_TPU_DEVICES, "nvidia[0-9]*", "dxg", "kfd", "dri/renderD*")
# glibc's malloc.h
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


class _Counts(ctypes.Structure):
    """glibc's struct mallinfo2, of all arenas."""

    _fields_ = [  # noqa: RUF012
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks "
        "fordblks keepcost".split()
    ]


def keep_freed_memory() -> None:
    """Keeps what this process frees, where it computes on a CPU; before jax starts.

    A program's temporary memory, hundreds of megabytes, is allocated at each call. By
    default glibc returns it to the system at the end of each, which then fills every
    page with zeros again: a fifth of a small training step (docs/performance.md). From
    now on the process stays as large as it ever was. On other systems, and where jax
    may find an accelerator, nothing is changed.
    """
    if has_accelerator():
        return
    adjust = getattr(ctypes.CDLL(None), "mallopt", None)
    if adjust is None:
        return
    # One arena, since others are made of small pieces that always go back.
    for name, value in ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1)):
        adjust(name, value)


def allocated() -> int | None:
    """Returns the bytes in use in this process; None where nothing counts them.

    Freed memory that the process keeps is not among them, unlike its resident size.
    """
    count = getattr(ctypes.CDLL(None), "mallinfo2", None)  # glibc 2.33
    if count is None:
        return None
    count.restype = _Counts
    counts = count()
    return int(counts.uordblks + counts.hblkhd)


def has_accelerator(devices: Path = Path("/dev")) -> bool:
    """Whether jax may find something other than a CPU, without initialising jax.

    A plugin alone is not enough: libtpu compiles for pods on computers without a TPU.
    """
    if chosen := os.environ.get("JAX_PLATFORMS"):
        return chosen != "cpu"
    return has_plugin() and any(any(devices.glob(name)) for name in _DEVICES)


def avoid_missing_tpu(devices: Path = Path("/dev")) -> None:
    """Keeps jax from loading libtpu on a computer without a TPU.

    libtpu, which compiles for pods there, would print errors about missing settings of
    a TPU. Before jax initialises its devices; where the environment chooses platforms,
    or another plugin may find an accelerator, nothing is changed.
    """
    chosen = os.environ.get("JAX_PLATFORMS") or os.environ.get("JAX_FORCE_TPU_INIT")
    nodes = (node for name in _TPU_DEVICES for node in devices.glob(name))
    if chosen or _plugins() or not _has_libtpu() or any(nodes):
        return
    os.environ["JAX_PLATFORMS"] = "cpu"
    if jax := sys.modules.get("jax"):  # which has read the environment
        jax.config.update("jax_platforms", "cpu")


def has_plugin() -> bool:
    """Whether jax has a plugin for an accelerator, or libtpu, to load."""
    return _has_libtpu() or _plugins()


def _has_libtpu() -> bool:
    return importlib.util.find_spec("libtpu") is not None


def _plugins() -> bool:
    found = importlib.util.find_spec("jax_plugins")
    places = (found.submodule_search_locations or ()) if found else ()
    return any(pkgutil.iter_modules(list(places)))
