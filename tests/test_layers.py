"""No module imports from a layer above its own (docs/architecture.md draws them)."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# From the bottom to the top. Names in one line may not import one another.
LAYERS = [
    {"tokret.names", "tokret.shapes"},
    {"tokret.errors"},
    {"tokret.arguments"},
    {"tokret.io"},
    {"tokret.runtime", "tokret.option_types"},
    {"tokret.config"},
    {"tokret.models"},
    {"tokret.data"},
    {"tokret.training"},
    {"tokret.retrieval"},
    {"tokret.convert"},
    {"tokret.evaluation", "tokret.comparison"},
    {"tokret.search"},
    {"tokret.api"},
    {"tokret.benchmark", "tokret.api"},
    {"tokret.command_line"},
    {"tokret.commands"},
    {"train", "eval", "benchmarks", "tokret.configs"},
]


def sources():
    for path in (*ROOT.glob("tokret/**/*.py"), ROOT / "train.py", ROOT / "eval.py"):
        if not any(part.is_symlink() for part in (path, *path.parents)):
            yield path


def module_name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def imported(path):
    """Yields (line, module) for each import of the project's own modules."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] in ("tokret", "train", "eval", "configs"):
                yield node.lineno, name


def package(name):
    """The entry of `LAYERS` that a module belongs to; None for tokret itself."""
    found = [
        entry
        for layer in LAYERS
        for entry in layer
        if (name + ".").startswith(entry + ".")
    ]
    return max(found, key=len, default=None)


def layer(entry):
    return next(i for i, names in enumerate(LAYERS) if entry in names)


def violations(path):
    own = package(module_name(path).removesuffix(".__init__"))
    for line, name in imported(path):
        other = package(name)
        if own is None or other is None or own == other:
            continue
        if layer(other) >= layer(own):
            yield f"{path.relative_to(ROOT)}:{line} imports {name}"


def test_no_module_imports_from_above():
    assert [found for path in sources() for found in violations(path)] == []


def test_an_upward_import_is_found(tmp_path, monkeypatch):
    source = tmp_path / "tokret" / "models" / "gem.py"
    source.parent.mkdir(parents=True)
    source.write_text("def f():\n    from tokret.training import step\n")
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (found,) = violations(source)
    assert found == "tokret/models/gem.py:2 imports tokret.training.step"


def test_heads_import_no_trunk_and_no_platform_choice():
    heads = [p for p in sources() if module_name(p).startswith("tokret.models.heads")]
    assert len(heads) > 5
    for path in heads:
        names = [name for _, name in imported(path)]
        assert not [n for n in names if n.startswith("tokret.models.trunks")], path
        assert "platform_dependent" not in path.read_text(), path
