"""The README's commands run, and its links lead to files."""

import json
import re
import shlex
import shutil

import jax
import numpy as np
import pytest

from tokret.convert.released import to_released
from tokret.convert.tensor_names import LAYOUTS
from tokret.io.weight_files import write_safetensors
from tokret.models.build import build_model

ROOT_README = "README.md"


@pytest.fixture(scope="module")
def readme(request):
    return (request.config.rootpath / ROOT_README).read_text()


def blocks(readme, language):
    found = re.findall(r"^```(\w*)\n(.*?)^```", readme, re.M | re.S)
    return [text for name, text in found if name == language]


@pytest.fixture
def weight_file(tmp_path):
    """Weights of a small Token under the released names, whatever the suffix."""
    fields = {"trunk": "tiny", "head": "token", "dim": 8, "width": 8}
    model = build_model(dtype="float32", **fields)
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    shapes = jax.eval_shape(
        lambda x: model.init(jax.random.key(0), x, train=False), images
    )
    ones = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), dict(shapes))
    path = tmp_path / "weights.pth"
    write_safetensors(path, to_released(ones, LAYOUTS["token"]), {})
    return path


@pytest.mark.slow
def test_every_command(
    readme,
    program,
    trained,
    demo_arguments,
    photo_folder,
    gldv2_folder,
    oxford_folder,
    weight_file,
    tmp_path,
):
    shutil.copytree(trained, tmp_path / "demo")
    others = shutil.copytree(photo_folder, tmp_path / "others")
    places = {
        "runs/demo": str(tmp_path / "demo"),
        "runs/photos": str(tmp_path / "photos"),
        "runs/own": str(tmp_path / "own"),
        "runs/lite0": str(tmp_path / "lite0"),
        "runs/theirs": str(tmp_path / "theirs"),
        "WEIGHTS.pth": str(weight_file),
        "theirs.safetensors": str(tmp_path / "theirs.safetensors"),
        "GLDV2": str(gldv2_folder),
        "OXFORD": str(oxford_folder),
        "DIR": str(tmp_path / "data"),
        "problems.csv": str(tmp_path / "problems.csv"),
        "OTHER_PHOTOS": str(others),
        "PHOTO.jpg": str(photo_folder / "ash" / "photo 1.jpg"),
        "runs/index": str(tmp_path / "index"),
        "answer.html": str(tmp_path / "answer.html"),
        "PHOTOS": str(photo_folder),
        "db.npy": str(tmp_path / "db.npy"),
        "q.npy": str(tmp_path / "q.npy"),
        "gnd_roxford5k.pkl": str(tmp_path / "gnd_two.json"),
        "out.json": str(tmp_path / "out.json"),
    }
    lists = {"bbx": [0, 0, 1, 1], "easy": [1], "hard": [], "junk": []}
    gnd = {"imlist": ["a", "b"], "qimlist": ["c"], "gnd": [lists]}
    (tmp_path / "gnd_two.json").write_text(json.dumps(gnd))
    np.save(tmp_path / "db.npy", np.eye(2))
    np.save(tmp_path / "q.npy", np.array([[0.1, 0.9]]))
    done = []
    for line in "".join(blocks(readme, "")).splitlines():
        if not line.startswith("tokret "):
            # CI is `make test-all`; the demo was run for the README's table.
            assert line in ("make demo", "make test", "source .venv/bin/activate")
            continue
        for name, path in places.items():
            line = re.sub(rf"(?<=[= ]){re.escape(name)}", shlex.quote(path), line)
        _, name, *arguments = shlex.split(line)
        if name == "train":
            # The same training, cut short; the fields of landmarks only with them.
            demo = "--config=configs/demo.py" in arguments
            if "--config=configs/grocery_token.py" in arguments:
                arguments.append(f"--config.init.trunk={places['runs/lite0']}")
            arguments += [
                short
                for short in demo_arguments[1:]
                if demo or not short.startswith("--config.data.")
            ]
        status, out, err = program(name, *arguments)
        # Of the few photos here the check reports that more were published.
        few = "check gldv2" in line and "1,580,470" in out
        assert status == (1 if few else 0), line + out + err
        done.append(name)
    commands = {"checkpoints", "convert", "data", "eval", "index", "query", "train"}
    assert set(done) == commands and len(done) == 24
    assert "ash/photo 1.jpg" in (tmp_path / "answer.html").read_text()

    found = json.loads((tmp_path / "photos" / "eval" / "results.json").read_text())
    numbers = found["benchmarks"][others.name]["all"]
    assert {"mAP", "recall@1", "recall@10", "mAP@10"} <= set(numbers)
    # Each class has a colour of its own.
    histogram = found["baselines"]["colour histogram"][others.name]["all"]
    assert histogram["recall@1"] == 1
    easy = json.loads((tmp_path / "out.json").read_text())["benchmarks"]["two"]["easy"]
    assert easy["mAP"] == 1


def test_the_way_with_ones_own_photos_is_the_readmes(readme, request):
    docs = request.config.rootpath / "docs"
    page = (docs / "search.md").read_text()
    ours = {line for block in blocks(readme, "") for line in block.splitlines()}
    commands = [line for block in blocks(page, "") for line in block.splitlines()]
    # tests/search runs those of an index.
    searching = ("tokret index", "tokret query", "tokret duplicates", "tokret serve")
    known = [
        line
        for line in commands
        if line.startswith("tokret ") and not line.startswith(searching)
    ]
    assert len(known) == 4 and set(known) <= ours
    # tests/commands runs that one, cut short.
    (compared,) = blocks((docs / "groceries.md").read_text(), "")
    assert compared.startswith("tokret compare ")


@pytest.mark.slow
def test_the_model_in_some_lines(readme, trained):
    snippet, loading = blocks(readme, "python")
    names = {}
    exec(loading.replace("runs/demo", str(trained)), names)  # noqa: S102
    assert names["descriptor"].shape == (2, 256)
    assert names["model"].trunk.width == 32  # the demo's
    names = {}
    exec(snippet, names)  # noqa: S102 (the README's own lines)
    assert names["descriptor"].shape == (1, 1024)
    np.testing.assert_allclose(np.linalg.norm(names["descriptor"]), 1, rtol=1e-5)
    assert names["intermediates"]["attention"].shape == (1, 4, 7, 7)
    assert isinstance(names["descriptor"], jax.Array)


def test_every_path_in_the_map_exists(request):
    root = request.config.rootpath
    architecture = (root / "docs" / "architecture.md").read_text()
    layers = re.findall(r"^\| (`.*?) \|", architecture, re.M)
    named = [name for cell in layers for name in re.findall(r"`([^`]+)`", cell)]
    assert "tokret/models/" in named
    for name in named:
        folders = (root, root / "tokret")
        assert any((folder / name).exists() for folder in folders), name


def test_links_lead_to_files_and_headings(request):
    root = request.config.rootpath
    pages = [*root.glob("*.md"), *(root / "docs").glob("*.md")]
    assert len(pages) > 10
    for page in pages:
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            if link.startswith("https://"):
                continue
            name, _, heading = link.partition("#")
            target = page.parent / name if name else page
            assert target.exists(), f"{page.name}: {link}"
            assert not heading or heading in anchors(target), f"{page.name}: {link}"


def anchors(page):
    """Returns the names that GitHub gives to a page's headings."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles}
