"""The table of docs/reliability.md names existing tests and readers."""

import re

from tests.fuzz.readers import READERS


def test_the_commands_of_the_table_exist(request):
    root = request.config.rootpath
    page = (root / "docs" / "reliability.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ")][2:]
    assert len(rows) >= 6
    for row in rows:
        *_, command = row.strip("| ").split(" | ")
        found = re.fullmatch(r"`python -m (pytest|tests\.fuzz) (\S+).*`", command)
        assert found, row
        assert found[1] != "pytest" or (root / found[2].partition("::")[0]).exists()
    assert re.search(r'--readers="([^"]*)"', page)[1] in READERS
