import json
import re

from tokret import __version__
from tokret.commands import info


def test_everything_has_a_line(tokret):
    status, out, _ = tokret("info")
    assert status == 0
    names = [line.split("  ")[0] for line in out.splitlines()]
    assert names[:2] == ["tokret", "Python"] and "jax" in names and "devices" in names
    assert names[-len(info.EXTRAS) :] == [f"extra {extra}" for extra in info.EXTRAS]


def test_json_has_the_same(tokret, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    compiled = tmp_path / ".cache" / "tokret" / "compiled"
    compiled.mkdir(parents=True)
    (compiled / "program").write_bytes(b"12345")
    (compiled.parent / "records").write_bytes(b"123")
    copies = compiled.parent / "remote" / "gs"
    copies.mkdir(parents=True)
    (copies / "object").write_bytes(b"1234567")
    monkeypatch.delenv("TOKRET_CACHE", raising=False)
    monkeypatch.setitem(info.EXTRAS, "faiss", ("no such package", "faiss-cpu"))
    status, out, _ = tokret("info", "--json")
    found = json.loads(out)
    assert status == 0 and found["version"] == __version__
    assert found["caches"]["data cache"]["bytes"] == 3
    assert found["caches"]["compilation cache"]["bytes"] == 5
    assert found["caches"]["copies of objects"]["bytes"] == 7
    assert found["extras"]["faiss"] is None
    assert "missing; pip install faiss-cpu" in tokret("info")[1]


def test_what_pip_is_given_is_on_its_index(request):
    """As are the packages of the extras; tokret itself is not."""
    extras = (request.config.rootpath / "setup.cfg").read_text()
    section = extras.partition("[options.extras_require]")[2].partition("\n[")[0]
    assert {*re.findall(r"^(\w+) =", section, re.M)} == {"test", *info.EXTRAS}
    for package, wanted in info.EXTRAS.values():
        assert "tokret" not in wanted
        assert wanted.strip("'") in extras, package
