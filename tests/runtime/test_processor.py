import platform

import pytest

from tokret.runtime import processor

X86 = """processor\t: 0
model name\t: A Processor @ 2.0GHz
flags\t\t: fpu sse2 amx_bf16 amx_tile
processor\t: 1
model name\t: A Processor @ 2.0GHz
flags\t\t: fpu sse2
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd bf16\n"


@pytest.fixture
def cpuinfo(tmp_path, monkeypatch):
    def write(text):
        path = tmp_path / "cpuinfo"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        monkeypatch.setattr(processor, "CPUINFO", path)

    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "absent")
    return write


def test_the_first_core_is_read(cpuinfo):
    cpuinfo(X86)
    assert processor.name() == "A Processor @ 2.0GHz"
    assert processor.instructions().split()[2:] == [
        "fpu",
        "sse2",
        "amx_bf16",
        "amx_tile",
    ]
    assert processor.multiplies_bfloat16()


def test_arm_has_features_and_no_name(cpuinfo):
    cpuinfo(ARM)
    assert processor.instructions().endswith("fp asimd bf16")
    assert processor.name() == (platform.processor() or platform.machine())
    assert not processor.multiplies_bfloat16()


@pytest.mark.parametrize("text", [None, "", b"\xff\xfe flags"])
def test_a_system_without_the_file(cpuinfo, text):
    if text is not None:
        cpuinfo(text)
    assert processor.instructions() == ""
    assert processor.name() and not processor.multiplies_bfloat16()
