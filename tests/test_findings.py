"""The form of findings/: what other libraries do that one would not expect.

Each is a script that is run by hand; it needs a package index.
"""

import re
import subprocess
from pathlib import Path

import pytest

FINDINGS = sorted((Path(__file__).resolve().parents[1] / "findings").iterdir())
PARTS = ("# Expected", "# What happens: ", "# Why it matters: ")


@pytest.mark.parametrize("path", FINDINGS, ids=lambda path: path.stem)
def test_a_finding_has_its_form(path):
    text = path.read_text()
    head, body = text.split("set -eu\n", 1)
    lines = head.splitlines()
    assert path.suffix == ".sh" and lines[0] == "#!/bin/bash"
    assert re.search(r"\d+\.\d+", lines[1]), "the second line names the version"
    assert all(line.startswith("# ") for line in lines[1:])
    assert all(head.count(f"\n{part}") == 1 for part in PARTS)
    assert "D=$(mktemp -d); " in body and 'rm -rf "$D"' in body
    (packages,) = re.findall(r'/pip" install -q ((?:.|\\\n)*?)\n', body)
    names = [w.strip("'") for w in packages.split() if not w.startswith(("-", "\\"))]
    assert names and all("==" in name for name in names), "pinned versions"
    assert not re.search(r"\btokret\b", body)
    assert body.endswith('\necho "as described"\n')
    assert max(map(len, text.splitlines())) <= 120
    subprocess.run(["bash", "-n", path], check=True)
