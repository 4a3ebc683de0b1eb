import dataclasses
from pathlib import Path

from docs.config_reference import write_reference
from tokret.config.tree import VARIANTS, Config

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_is_up_to_date():
    """If not: python -m docs.config_reference > docs/config.md."""
    assert (ROOT / "docs" / "config.md").read_text() == write_reference()


def test_the_page_has_every_field():
    page = write_reference()
    kinds = [kind for _, table in VARIANTS.values() for kind in table.values()]
    for kind in (Config, *kinds):
        for field in dataclasses.fields(kind):
            heading = f"## config.{field.name}\n"
            assert (
                f"| `{field.name}` |" in page
                or heading in page
                or (field.name in ("name", "head", "dataset"))
            )
    assert (
        "| `dim` | int | in [1, 65536] | `1024` | dimensions of a descriptor |" in page
    )
    assert "| `decay` | str | `cosine`, `linear` |  | of the rate" in page
