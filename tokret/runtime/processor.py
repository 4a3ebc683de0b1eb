"""What the system tells of its processor."""

import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


def name() -> str:
    """Names the processor, as well as the system can tell."""
    told = _first("model name").partition(":")[2].strip()
    return told or platform.processor() or platform.machine()


def instructions() -> str:
    """Lists the instructions it has; "" where the system does not tell."""
    return _first("flags") or _first("Features")  # x86's word, and Arm's


def multiplies_bfloat16() -> bool:
    """Whether it has units for products of bfloat16 matrices: x86's AMX."""
    return "amx_bf16" in instructions().split()


def _first(word: str) -> str:
    """The first line that begins with a word."""
    try:
        lines = CPUINFO.read_text(errors="replace").splitlines()
    except OSError:  # not Linux
        return ""
    return next((line for line in lines if line.startswith(word)), "")
