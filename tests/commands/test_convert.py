"""The converter as a user types it."""

import functools
import json
import pickle
import re
import subprocess
import sys
import zipfile

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.io import test_torch_files as by_hand
from tokret.convert.recognition import Found, header
from tokret.convert.released import to_released
from tokret.convert.tensor_names import LAYOUTS
from tokret.io.weight_files import read_weights, write_safetensors
from tokret.models.build import build_model
from tokret.training.checkpoint_digests import write_digests

SMALL = {"dim": 8, "width": 16, "tokens": 2, "num_heads": 2}
MODELS = {
    "gem": {"trunk": "tiny", "head": "gem", "dim": 8, "p": 2.5},
    "rmac": {"trunk": "tiny", "head": "rmac", "dim": 8, "levels": 2},
    "solar": {"trunk": "tiny", "head": "solar", "dim": 8},
    "token": {"trunk": "tiny", "head": "token", **SMALL},
    "netvlad": {"trunk": "tiny", "head": "netvlad", "dim": 16, "clusters": 2},
    "delg": {"trunk": "tiny", "head": "delg", "dim": 8, "local_loss": True},
}


def random_weights(head):
    """A released state dict of random numbers, counters and all."""
    model = build_model(dtype="float32", **MODELS[head])
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    shapes = jax.eval_shape(
        lambda x: model.init(jax.random.key(0), x, train=False), images
    )
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: rng.uniform(0.1, 1, leaf.shape).astype(np.float32), dict(shapes)
    )
    variables["arcface"] = {"weight": rng.normal(size=(5, MODELS[head]["dim"]))}
    tensors = to_released(variables, LAYOUTS[head])
    counters = {
        name.replace("running_var", "num_batches_tracked"): np.array(i + 3)
        for i, name in enumerate(tensors)
        if name.endswith("running_var")
    }
    whole = {**tensors, **counters}
    return {
        name: np.asarray(tensor, np.float32 if tensor.ndim else np.int64, order="C")
        for name, tensor in whole.items()
    }


@pytest.fixture(scope="module")
def weights():
    return {head: random_weights(head) for head in MODELS}


@pytest.fixture
def convert(tokret):
    return functools.partial(tokret, "convert")


def assert_identical(found, expected):
    assert set(found) == set(expected)  # safetensors has an order of its own
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        np.testing.assert_array_equal(found[name], tensor, err_msg=name)


@pytest.mark.parametrize("head", MODELS)
def test_there_and_back_bit_for_bit(weights, convert, tmp_path, head):
    source = tmp_path / "theirs.safetensors"
    write_safetensors(source, weights[head], header(Found(head, MODELS[head])))
    status, out, err = convert("from-torch", source, f"--output={tmp_path / 'run'}")
    assert status == 0, out + err
    back = tmp_path / "ours.safetensors"
    status, out, err = convert("to-torch", tmp_path / "run", f"--output={back}")
    assert status == 0, out + err
    assert "(step 0, " in out
    assert_identical(read_weights(back).tensors, weights[head])
    status, out, _ = convert("inspect", tmp_path / "run")
    assert status == 0 and "checkpoints/0: the newest of 1 " in out
    # What tokret wrote messages itself what it is, also what no shape shows.
    status, out, _ = convert("inspect", back)
    assert status == 0 and f"layout {head}" in out and "take all of it" in out
    for name, value in MODELS[head].items():
        assert f"{name} {value}" in out


def test_half_precision_comes_back_as_it_was(weights, convert, tmp_path):
    half = {
        name: tensor.astype(np.float16) if tensor.ndim else tensor
        for name, tensor in weights["token"].items()
    }
    source = tmp_path / "half.safetensors"
    write_safetensors(source, half, {})
    run, back = tmp_path / "run", tmp_path / "back.safetensors"
    status, out, err = convert("from-torch", source, f"--output={run}", "--num_heads=2")
    assert status == 0, out + err
    config = json.loads((run / "config.json").read_text())
    assert config["model"].items() >= MODELS["token"].items()
    assert convert("to-torch", run, f"--output={back}")[0] == 0
    assert_identical(read_weights(back).tensors, half)


@pytest.mark.slow
def test_torchs_own_file_without_torch(
    weights, convert, program, photo_folder, demo_arguments, tmp_path
):
    torch = pytest.importorskip("torch")
    source, run = tmp_path / "weights.pth", tmp_path / "run"
    tensors = {name: torch.tensor(leaf) for name, leaf in weights["token"].items()}
    torch.save({"epoch": 3, "state_dict": tensors, "optim": {"state": {}}}, source)

    code = """
import sys
from tokret.__main__ import main
try:
    main()
finally:
    assert "torch" not in sys.modules
"""
    command = [sys.executable, "-c", code]
    arguments = [
        "convert",
        "from-torch",
        str(source),
        f"--output={run}",
        "--num_heads=2",
    ]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "epoch" in done.stdout

    small = f"{run}/config.json"
    config = json.loads((run / "config.json").read_text())
    config["evaluation"] |= {"longest_side": 48, "scales": [1.0], "canvases": 1}
    with open(small, "w") as file:
        json.dump(config, file)
    evaluated = program("eval.py", f"--workdir={run}", f"--image_folder={photo_folder}")
    assert evaluated[0] == 0, evaluated[2]
    found = json.loads((run / "eval" / "results.json").read_text())
    assert 0 < found["benchmarks"][photo_folder.name]["all"]["mAP"] <= 1

    back = tmp_path / "back.pth"
    status, out, err = convert("to-torch", run, f"--output={back}")
    assert status == 0, out + err
    theirs = torch.load(back, weights_only=True)
    assert list(theirs) == list(tensors)
    assert all(torch.equal(theirs[name], tensors[name]) for name in tensors)


def spoil(tensors, change):
    tensors = dict(tensors)
    if change == "renamed":
        tensors["tr.querry"] = tensors.pop("tr.query")
    elif change == "missing":
        del tensors["backbone.block3.0.bn1.running_var"]
    elif change == "misshapen":
        tensors["tr.conv.0.weight"] = np.zeros((16, 5, 1, 1), np.float32)
    elif change == "counted":
        tensors["tr.query.num_batches_tracked"] = np.array(1)
        tensors["tr.conv.1.num_batches_tracked"] = np.array([1])
    elif change == "impossible":
        tensors["tr.query"] = tensors["tr.query"] * np.float64(1e300)
        variance = "backbone.block1.1.running_var"
        tensors[variance] = -tensors[variance]
    elif change == "overflown":
        tensors["tr.query"] = tensors["tr.query"] * np.float32(np.inf)
        tensors["tr.conv.0.bias"] = np.zeros(16, np.int32)
    return tensors


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        ("renamed", ("tr.query is missing", "tr.querry is not the model's")),
        ("missing", ("backbone.block3.0.bn1.running_var is missing",)),
        ("counted", ("tr.query.num_batches_tracked is not", "has shape [1], not []")),
        ("overflown", ("tr.query has values", "tr.conv.0.bias is int32")),
        ("impossible", ("tr.query has values", "running_var has a variance below")),
        ("misshapen", ("tr.conv.0.weight has shape [16, 5, 1, 1], not [16, 128",)),
    ],
)
def test_nothing_is_skipped_and_nothing_written(
    weights, convert, refused, tmp_path, change, messages
):
    source, output = tmp_path / "bad.safetensors", tmp_path / "run"
    write_safetensors(source, spoil(weights["token"], change), {})
    refused(
        convert("from-torch", source, f"--output={output}", "--num_heads=2"), *messages
    )
    refused(convert("inspect", source, "--num_heads=2"), "would be refused", *messages)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.safetensors"]


def torchvision_trunk():
    """A random torchvision ResNet of the tiny kind, without its classifier."""
    model = build_model(dtype="float32", trunk="tiny", head="gem", whiten=False)
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    shapes = jax.eval_shape(
        lambda x: model.init(jax.random.key(0), x, train=False), images
    )
    variables = jax.tree.map(lambda leaf: np.ones(leaf.shape, "f4"), dict(shapes))
    return to_released(variables, LAYOUTS["torchvision"])


def test_a_foreign_prefix_is_removed_and_reported(convert, refused, tmp_path):
    trunk = torchvision_trunk()
    source, run = tmp_path / "theirs.safetensors", tmp_path / "run"
    save_file({f"backbone.{name}": t for name, t in trunk.items()}, source)
    status, out, err = convert("from-torch", source, f"--output={run}")
    assert status == 0, out + err
    assert "backbone. is removed from the beginning of all names" in out
    assert "without digests, not verified" in out
    head = {"head.weight": np.ones((5, 2), "f4"), "queue": np.ones(3, "f4")}
    save_file({f"net.{n}": t for n, t in (trunk | head).items()} | head, source)
    alone = tmp_path / "alone"
    refused(
        convert("from-torch", source, f"--output={alone}"),
        "--state: a trunk is below net. and 2 other tensors",
        "state=net takes the trunk alone",
    )
    save_file({f"net.{n}": t for n, t in trunk.items()} | head, source)
    status, out, err = convert("from-torch", source, f"--output={alone}", "--state=net")
    assert status == 0, out + err
    assert "skipped, 2 not weights of a model: head.weight, queue" in out
    refused(
        convert("from-torch", source, f"--output={tmp_path / 'x'}", "--state=ema"),
        "--state: ",
        "no dict 'ema'",
    )


def test_the_commands_of_the_page_on_weights(convert, request, tmp_path):
    page = (request.config.rootpath / "docs" / "weights.md").read_text()
    commands = re.findall(r"^tokret convert (.*)$", page, re.M)
    source, run = tmp_path / "theirs.safetensors", tmp_path / "run"
    trunk = {f"backbone.{name}": t for name, t in torchvision_trunk().items()}
    save_file(trunk, source)
    places = {"CHECKPOINT.pth": str(source), "runs/theirs": str(run)}
    for command in commands:
        for name, path in places.items():
            command = command.replace(name, path)
        status, out, err = convert(*command.split())
        assert status == 0, out + err
    assert len(commands) == 2 and run.is_dir()


def test_any_file_is_listed(convert, tmp_path):
    source = tmp_path / "theirs.safetensors"
    save_file({"mlp.0.weight": np.ones((3, 2), "f4"), "mlp.0.bias": np.ones(3)}, source)
    status, out, err = convert("inspect", source)
    assert status == 0, out + err
    assert re.search(r"mlp\.0\.weight +float32 +3x2\n", out)
    assert "without digests, not verified: 2 tensors, 9 values" in out
    assert "takes none of it: no tensors of a known model" in out
    assert convert("inspect", source, "--head=gem")[0] == 2


def test_names_of_a_file_do_not_control_the_terminal(convert, tmp_path):
    source = tmp_path / "weights.pth"
    names = by_hand.mapping({"layer1.0\x1b[2J.w": by_hand.tensor("7", (), ())})
    top = {"a\x1b[2Jb": names, "model": names, "n\n": by_hand.number(1)}
    source.write_bytes(
        by_hand.zip_file(by_hand.mapping(top), {"7": by_hand.STORAGES["7"]})
    )
    outputs = [convert("inspect", source), convert("inspect", source, "--state=\x1b[2")]
    for _, out, err in outputs:
        assert "\\x1b[2J" in out and "\x1b" not in out + err
        assert "n\\n (int)" in out


def test_a_checkpoint_of_tokret_is_listed(convert, weights, tmp_path):
    source, run = tmp_path / "theirs.safetensors", tmp_path / "run"
    write_safetensors(source, weights["gem"], {})
    assert convert("from-torch", source, f"--output={run}", "--head=gem")[0] == 0
    status, out, _ = convert("inspect", run / "checkpoints" / "0")
    assert status == 0 and "state.params.model.trunk.conv1.kernel" in out
    assert "Orbax: " in out and "tokret" not in out.splitlines()[-1]


def test_tokrets_own_file_without_digests_is_refused(
    weights, convert, refused, tmp_path
):
    source = tmp_path / "theirs.safetensors"
    save_file(weights["gem"], source, header(Found("gem", MODELS["gem"])))
    refused(convert("inspect", source), "no digests; write it again")


def test_one_of_several_state_dicts_is_taken(weights, convert, tmp_path):
    torch = pytest.importorskip("torch")
    trained = {name: torch.tensor(leaf) for name, leaf in weights["gem"].items()}
    ema = {
        f"module.{name}": tensor * 0.5 if tensor.ndim else tensor
        for name, tensor in trained.items()
    }
    model = torch.nn.Linear(2, 2)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(
        torch.optim.SGD(model.parameters(), 0.1), [10, 20]
    )
    whole = {"epoch": 3, "scheduler": scheduler.state_dict(), "state_dict": trained}
    whole["state_dict_ema"] = ema | {"n_averaged": torch.tensor(7)}
    source = tmp_path / "weights.pth"
    torch.save(whole, source)
    for state, factor in (("state_dict", 1), ("state_dict_ema", 0.5)):
        run, back = tmp_path / state, tmp_path / f"{state}.safetensors"
        chosen = () if factor == 1 else (f"--state={state}",)
        arguments = ("from-torch", source, f"--output={run}", "--head=gem", *chosen)
        status, out, err = convert(*arguments)
        assert status == 0, out + err
        assert f"taken: {state}; also in it: --state=state_dict" in out
        assert ("n_averaged" in out) == (factor == 0.5)
        assert "not weights of a model: epoch, scheduler" in out
        assert convert("to-torch", run, f"--output={back}")[0] == 0
        found = read_weights(back).tensors["whiten.weight"]
        np.testing.assert_array_equal(found, weights["gem"]["whiten.weight"] * factor)


def test_mistakes_are_one_line(weights, convert, refused, tmp_path):
    source, run = tmp_path / "theirs.safetensors", tmp_path / "run"
    write_safetensors(source, weights["token"], {})
    refused(convert(), "needs one of: inspect")
    refused(convert("from-torch", source), "--output")
    refused(convert("from-torch", tmp_path / "no.pth", f"--output={run}"), "no.pth")
    run.mkdir()
    refused(convert("from-torch", source, f"--output={run}"), "is there already")
    refused(
        convert("from-torch", source, "--output=x", "--num_heads=3"), "num_heads is 3"
    )
    refused(convert("to-torch", run, "--output=x.npz"), ".safetensors or .pth")
    refused(convert("to-torch", run, f"--output={source}"), "is there already")
    back = tmp_path / "back.safetensors"
    refused(convert("to-torch", run, f"--output={back}"), "no checkpoint")
    assert not back.exists()


def test_a_pickle_that_runs_code_is_refused(convert, refused, tmp_path):
    source, mark = tmp_path / "evil.pth", tmp_path / "owned"
    command = f"touch {mark}".encode()
    call = b"\x80\x02cos\nsystem\nX" + len(command).to_bytes(4, "little") + command
    attack = call + b"\x85R."
    pickle.loads(attack)  # noqa: S301 (the attack is a real one)
    mark.unlink()
    with zipfile.ZipFile(source, "w") as archive:  # as torch writes it
        archive.writestr("archive/data.pkl", attack)
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/version", "3\n")
    refused(convert("inspect", source), "evil.pth", "os.system")
    run = tmp_path / "run"
    refused(convert("from-torch", source, f"--output={run}"), "os.system")
    assert not mark.exists() and not run.exists()


@pytest.mark.slow
def test_a_trained_run_becomes_the_authors_layout(trained, convert, tmp_path):
    back = tmp_path / "trained.safetensors"
    status, out, err = convert("to-torch", trained, f"--output={back}")
    assert status == 0, out + err
    file = read_weights(back)
    assert file.tensors["classifier.weight"].shape[0] == 4  # no row of the padding
    assert file.tensors["tr.conv.1.num_batches_tracked"] == 12
    status, out, err = convert("from-torch", back, f"--output={tmp_path / 'again'}")
    assert status == 0, out + err


def test_a_header_is_not_contradicted_and_not_trusted(
    weights, convert, refused, tmp_path
):
    source = tmp_path / "theirs.safetensors"
    write_safetensors(source, weights["token"], header(Found("token", MODELS["token"])))
    refused(
        convert("inspect", source, "--num_heads=4"), str(source), "its header has 2"
    )
    for model in ({"dim": None}, {"trunk": "tiny", "head": "token", "dim": 1.5}):
        write_safetensors(source, weights["token"], header(Found("token", model)))
        refused(convert("inspect", source), str(source))


@pytest.mark.parametrize(
    "damage",
    [
        lambda origin: origin["tensors"].popitem(),
        lambda origin: origin["tensors"].update({"tr.query": [5]}),
        lambda origin: origin["tensors"].update({"tr.query": ["int8"]}),
        lambda origin: origin["tensors"].update({"tr.conv.0.bias": None}),
        lambda origin: origin.update(layout=["token"]),
    ],
)
def test_a_damaged_record_writes_nothing(weights, convert, refused, tmp_path, damage):
    source, run = tmp_path / "theirs.safetensors", tmp_path / "run"
    write_safetensors(source, weights["token"], {})
    assert convert("from-torch", source, f"--output={run}", "--num_heads=2")[0] == 0
    origin = json.loads((run / "origin.json").read_text())
    damage(origin)
    (run / "origin.json").write_text(json.dumps(origin))
    back = tmp_path / "back.safetensors"
    refused(convert("to-torch", run, f"--output={back}"), "origin.json")
    assert not back.exists()


@pytest.mark.slow
def test_damaged_weights_are_named(weights, convert, program, tmp_path):
    source, run = tmp_path / "theirs.safetensors", tmp_path / "run"
    write_safetensors(source, weights["token"], {})
    assert convert("from-torch", source, f"--output={run}", "--num_heads=2")[0] == 0
    for path in (run / "checkpoints").rglob("d/*"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    back = tmp_path / "back.safetensors"
    # A process of its own: what Orbax leaves unfinished would disturb other tests. Its
    # event loop may complain at the very end.
    status, _, err = program("convert", "to-torch", run, f"--output={back}")
    assert status == 2
    (line,) = (line for line in err.splitlines() if line.startswith("error: "))
    assert "checkpoints/0" in line
    assert not back.exists()


def test_the_papers_forms_have_no_released_names(weights, convert, refused, tmp_path):
    source, run = tmp_path / "theirs.safetensors", tmp_path / "run"
    write_safetensors(source, weights["token"], {})
    assert convert("from-torch", source, f"--output={run}", "--num_heads=2")[0] == 0
    for path in (run / "config.json", *run.rglob("_CHECKPOINT_METADATA")):
        path.write_text(
            re.sub(r'("refinement": ?)"released"', r'\1"paper"', path.read_text())
        )
    write_digests(run / "checkpoints" / "0")
    back = tmp_path / "back.pth"
    refused(convert("to-torch", run, f"--output={back}"), "refinement is 'paper'")
    assert not back.exists()
