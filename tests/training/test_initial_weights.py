import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tokret.config.parsing import parse_model
from tokret.config.tree import InferenceConfig, InitConfig
from tokret.errors import UserError
from tokret.io.remote import urls
from tokret.io.remote.uploading import publish
from tokret.training.checkpoint_arrays import on_first_device
from tokret.training.initial_weights import load_initial_weights
from tokret.training.weights import save_weights

MODEL = {"trunk": "tiny", "head": "gem", "dtype": "float32", "dim": 8}


def variables(value, head=2):
    trunk, top = jnp.full(3, value), jnp.full(head, value)
    return {
        "params": {"trunk": {"w": trunk}, "head": {"w": top}},
        "batch_stats": {"trunk": {"mean": trunk}, "head": {"mean": top}},
    }


@pytest.fixture
def source(config, tmp_path):
    saved = jax.tree.map(np.asarray, variables(7.0))
    save_weights(tmp_path, {"model": saved["params"]}, saved["batch_stats"], config)
    return str(tmp_path)


def begin(model=MODEL, head=2, **fields):
    drawn = variables(1.0, head)
    abstract = on_first_device(jax.eval_shape(lambda: drawn))
    init = InitConfig(**fields)
    found = load_initial_weights(init, parse_model(model), drawn, abstract)
    return jax.tree.map(lambda leaf: float(leaf[0]), found)


def test_what_a_run_begins_with(source):
    assert begin() == jax.tree.map(lambda leaf: 1.0, variables(0.0))
    assert begin(checkpoint=source) == jax.tree.map(lambda leaf: 7.0, variables(0.0))
    # The trunk's weights and statistics, under a head of another size.
    assert begin(trunk=source, head=5) == {
        "params": {"trunk": {"w": 7.0}, "head": {"w": 1.0}},
        "batch_stats": {"trunk": {"mean": 7.0}, "head": {"mean": 1.0}},
    }


def test_a_run_may_begin_with_weights_in_a_bucket(source, tmp_path, monkeypatch):
    monkeypatch.setenv(urls.CACHE, str(tmp_path / "cache"))
    shutil.copytree(tmp_path / "checkpoints", tmp_path / "cache/memory/b/w/checkpoints")
    publish(urls.local_path("memory://b/w"))
    shutil.rmtree(tmp_path / "cache")
    found = begin(checkpoint="memory://b/w")
    assert found == jax.tree.map(lambda leaf: 7.0, variables(0.0))
    with pytest.raises(UserError, match="^trunk is 'memory://b/none'; .*of a run"):
        begin(trunk="memory://b/none")


def test_what_does_not_fit_is_named(source, tmp_path):
    with pytest.raises(UserError, match="trunk must be empty"):
        begin(checkpoint=source, trunk=source)
    with pytest.raises(UserError, match=r"head/w has shape \(2,\), not \(5,\)"):
        begin(checkpoint=source, head=5)
    with pytest.raises(UserError, match="a tiny, but the model's trunk is resnet50"):
        begin(trunk=source, model={**MODEL, "trunk": "resnet50"})
    with pytest.raises(UserError, match="^trunk is .*folder of a run"):
        begin(trunk=str(tmp_path / "nowhere"))


def test_what_leaves_no_trace_in_shapes_is_compared(tmp_path):
    source = str(tmp_path)
    model = {**MODEL, "head": "netvlad", "num_heads": 4, "dropout": 0.1}
    config = InferenceConfig(model=parse_model(model))
    saved = jax.tree.map(np.asarray, variables(7.0))
    save_weights(tmp_path, {"model": saved["params"]}, saved["batch_stats"], config)
    same = {**model, "dropout": 0.0}
    assert begin(checkpoint=source, model=same)["params"]["head"]["w"] == 7
    with pytest.raises(UserError, match="of a model with num_heads 4, but .* is 2"):
        begin(checkpoint=source, model={**model, "num_heads": 2})


def test_a_second_order_trunk_begins_with_the_plain_one(config, tmp_path):
    plain = {name: {"trunk": tree["trunk"]} for name, tree in variables(7.0).items()}
    saved = jax.tree.map(np.asarray, plain)
    plain_model = dataclasses.replace(config.model, trunk="resnet50")
    plain = dataclasses.replace(config, model=plain_model)
    save_weights(tmp_path, {"model": saved["params"]}, saved["batch_stats"], plain)
    drawn = variables(1.0)
    for tree in drawn.values():
        tree["trunk"]["soa4"] = {"v": jnp.zeros(2)}
    abstract = on_first_device(jax.eval_shape(lambda: drawn))
    model = parse_model({**MODEL, "trunk": "resnet50_soa4"})
    init = InitConfig(trunk=str(tmp_path))
    found = load_initial_weights(init, model, drawn, abstract)
    assert float(found["params"]["trunk"]["w"][0]) == 7
    assert float(found["batch_stats"]["trunk"]["mean"][0]) == 7
    assert float(found["params"]["trunk"]["soa4"]["v"][0]) == 0
