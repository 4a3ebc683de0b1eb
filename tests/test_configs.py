"""Every head in every recipe, and every row of the ablation, built from its config."""

import dataclasses
import inspect
import json

import jax
import jax.numpy as jnp
import pytest

from configs import (
    ablation,
    base,
    demo,
    gldv2_r50,
    gldv2_r101,
    grocery_heads,
    grocery_token,
    heads,
    image_folder,
)
from tokret.configuration import call
from tokret.data.datasets import prepare_function
from tokret.errors import UserError
from tokret.models.arcface import ArcFace
from tokret.models.build import HEADS, build_model

RECIPES = (gldv2_r50, gldv2_r101, demo, image_folder, grocery_token, grocery_heads)
CHANNELS = {"tiny": 128, "efficientnet_lite0": 1280}  # others have 2048


def check(config):
    """Builds the model that a config names, and the head's embedding."""
    fields = json.loads(json.dumps(config.model.to_dict()))
    model = call(build_model, "model", fields)
    channels = CHANNELS.get(config.model.trunk, 2048)
    embedding, _ = jax.eval_shape(
        lambda x: model.head.init_with_output(jax.random.key(0), x, train=False)[0],
        jax.ShapeDtypeStruct((1, 2, 2, channels), model.head.dtype),
    )
    assert embedding.shape == (1, config.model.dim)
    assert config.arcface.scale == pytest.approx(config.model.dim**0.5)
    call(ArcFace, "arcface", config.arcface.to_dict(), classes=2, padded_classes=2)
    return model


def test_the_heads_are_the_models():
    assert set(heads.HEADS) == set(HEADS)
    of_modules = {"dtype", "name", "parent"}
    for name, module in HEADS.items():
        takes = {field.name for field in dataclasses.fields(module)} - of_modules
        named = set(demo.get_config(name).model)
        # DELG is GeM, which may go without whitening, with a loss beside it.
        assert takes - named == ({"whiten"} if name == "delg" else set()), name


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.__name__)
def test_every_recipe_takes_every_head(recipe):
    assert recipe.get_config("token") == recipe.get_config()
    for name in heads.HEADS:
        config = recipe.get_config(name)
        assert set(config) == set(base.get_config())
        model = check(config)
        assert type(model.head) is HEADS[name]
        assert (model.local is not None) == (name == "delg")
        # Only the head changes.
        rest = recipe.get_config()
        for group in (config, rest):
            del group["model"]
        assert config == rest
    with pytest.raises(UserError, match="'solr'; it must be one of: .*solar"):
        recipe.get_config("solr")


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.__name__)
def test_every_recipe_names_every_field_of_its_photos(recipe):
    fields = dict(recipe.get_config().data)
    function = prepare_function(fields.pop("name"))
    takes = dict(inspect.signature(function).parameters)
    # Where they lie and how fast they are prepared belongs to the machine.
    for machine in ("data_dir", "workers", "threads"):
        takes.pop(machine, None)
    assert set(fields) == set(takes)
    if recipe not in (demo, grocery_token, grocery_heads):
        assert fields == {name: p.default for name, p in takes.items()}


@pytest.mark.parametrize("row", ablation.ROWS)
def test_every_row_of_the_ablation(row):
    for recipe, module in (("", gldv2_r101), ("demo/", demo)):
        config = ablation.get_config(f"{recipe}{row}")
        check(config)
        assert (config == module.get_config()) == (row == "released")


@pytest.mark.parametrize(
    ("row", "says"),
    [("papr", "row .*paper_tokenizer"), ("", "row"), ("dmo/paper", "recipe .*demo")],
)
def test_rows_that_are_not_there(row, says):
    with pytest.raises(UserError, match=says):
        ablation.get_config(row)


def test_the_paper_itself_has_neither_linear_nor_mlp():
    config = ablation.get_config("demo/paper")
    head = build_model(**config.model).head
    shapes = jax.eval_shape(
        lambda x: head.init(jax.random.key(0), x, train=False),
        jax.ShapeDtypeStruct((1, 2, 2, 128), jnp.float32),
    )
    assert set(shapes["params"]["tokenizer"]) == {"maps"}
    layer = {"self_attn", "norm1", "cross_attn", "norm2"}
    assert set(shapes["params"]["decoder1"]) == layer


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("configs/ablation.py:papr", ("row", "paper_refinement")),
        # The right head, in the right place: the photos are what is missing.
        ("configs/gldv2_r101.py:solar", ("gldv2",)),
    ],
)
def test_at_the_command_line(program, refused, tmp_path, config, says):
    arguments = (f"--config={config}", f"--workdir={tmp_path / 'w'}")
    refused(program("train.py", *arguments), *says)
    assert not (tmp_path / "w").exists()
