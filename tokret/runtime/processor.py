"""The system's description of its processor."""

import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


def name() -> str:
    """Returns the processor's name, as far as the system knows it."""
    model = _first("model name").partition(":")[2].strip()
    return model or platform.processor() or platform.machine()


def instructions() -> str:
    """Lists the instructions it has; "" where the system has no list."""
    return _first("flags") or _first("Features")  # on x86, and on Arm


def multiplies_bfloat16() -> bool:
    """Whether it multiplies bfloat16 matrices in hardware: x86's AMX."""
    return "amx_bf16" in instructions().split()


def _first(word: str) -> str:
    """Returns the first line that begins with a word; "" if there is none."""
    try:
        lines = CPUINFO.read_text(errors="replace").splitlines()
    except OSError:  # not Linux
        return ""
    return next((line for line in lines if line.startswith(word)), "")
