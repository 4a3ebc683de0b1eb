"""The tables of docs/reliability.md name existing commands, tests and readers."""

import re
import shlex

from benchmarks.__main__ import COMMANDS
from tests.fuzz.readers import READERS


def commands(root):
    page = (root / "docs" / "reliability.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    cells = [row.strip("| ").split(" | ") for row in rows]
    return [row[-1].strip("`") for row in cells if row[0] not in ("promised", "---")]


def test_the_commands_of_the_tables_exist(request):
    root, found = request.config.rootpath, commands(request.config.rootpath)
    assert len(found) >= 15
    for command in found:
        words = shlex.split(command.replace("TOKRET_KILLS=20 ", ""))
        assert words[:2] == ["python", "-m"]
        program, arguments = words[2], words[3:]
        if program == "benchmarks":
            assert arguments[0] in COMMANDS
            continue
        for argument in arguments:
            if argument.startswith("--readers="):
                assert set(argument.partition("=")[2].split(";")) <= set(READERS)
        if program != "tests.fuzz":
            assert program == "pytest" and check_tests(root, arguments), command


def check_tests(root, arguments):
    """Whether each path has tests, and each word of -k is in a test's name."""
    paths = [root / a for a in arguments if a.startswith("tests/")]
    files = [f for p in paths for f in ([p] if p.is_file() else p.rglob("test_*.py"))]
    names = re.findall(r"^def (test_\w+)", "".join(f.read_text() for f in files), re.M)
    chosen = (
        arguments[arguments.index("-k") + 1].split(" or ") if "-k" in arguments else []
    )
    return names and all(any(word in name for name in names) for word in chosen)
