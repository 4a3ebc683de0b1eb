"""Every head in every recipe, and every row of the ablation, built from its config."""

import dataclasses
from typing import get_args

import jax
import jax.numpy as jnp
import pytest

from tokret.config.datasets import DATASETS as DATA_CONFIGS
from tokret.config.models import HEADS as CONFIGS
from tokret.config.models import Trunk
from tokret.config.parsing import field_types, parse, plain_type, to_tree
from tokret.config.tree import VARIANTS, RunConfig
from tokret.configs import (
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
from tokret.data.datasets import DATASETS
from tokret.errors import UserError
from tokret.models.build import DTYPES, HEADS, TRUNKS, build_model
from tokret.training.optimiser import OPTIMISERS
from tokret.training.retention import MEASURES

RECIPES = (gldv2_r50, gldv2_r101, demo, image_folder, grocery_token, grocery_heads)
CHANNELS = {"tiny": 128, "efficientnet_lite0": 1280}  # others have 2048


def check(config):
    """Builds the model that a config names, and the head's embedding."""
    parsed = parse(config.to_dict())
    model = build_model(**dataclasses.asdict(parsed.model))
    channels = CHANNELS.get(config.model.trunk, 2048)
    embedding, _ = jax.eval_shape(
        lambda x: model.head.init_with_output(jax.random.key(0), x, train=False)[0],
        jax.ShapeDtypeStruct((1, 2, 2, channels), model.head.dtype),
    )
    assert embedding.shape == (1, config.model.dim)
    assert config.arcface.scale == pytest.approx(config.model.dim**0.5)
    return model


def test_the_heads_are_the_models():
    assert set(heads.HEADS) == set(HEADS)
    of_modules = {"dtype", "name", "parent"}
    for name, module in HEADS.items():
        takes = {field.name for field in dataclasses.fields(module)} - of_modules
        named = set(demo.get_config(name).model)
        assert named <= {field.name for field in dataclasses.fields(CONFIGS[name])}
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
def test_every_recipe_names_every_field(recipe):
    tree, config = recipe.get_config().to_dict(), parse(recipe.get_config().to_dict())
    for name, group in to_tree(config).items():
        if isinstance(group, dict):
            assert set(tree[name]) == set(group)
    assert set(tree) == set(to_tree(config)) - {"dataset"}
    if recipe not in (demo, grocery_token, grocery_heads):
        assert config.data == type(config.data)(name=config.data.name)


def test_the_choices_of_the_config_are_those_of_the_library():
    assert set(CONFIGS) == set(HEADS)
    assert set(get_args(Trunk)) == set(TRUNKS)
    assert set(VARIANTS["optimiser"][1]) == set(OPTIMISERS)
    choices, _ = plain_type(field_types(RunConfig)["keep_best"])
    assert set(get_args(choices)) == {"", *MEASURES}
    dtypes, _ = plain_type(field_types(CONFIGS["gem"])["dtype"])
    assert set(get_args(dtypes)) == set(DTYPES)


def test_every_dataset_has_fields_and_a_function():
    assert set(DATA_CONFIGS) == set(DATASETS)


@pytest.mark.parametrize("row", ablation.ROWS)
def test_every_row_of_the_ablation(row):
    for recipe, module in (("", gldv2_r101), ("demo/", demo)):
        config = ablation.get_config(f"{recipe}{row}")
        check(config)
        assert (config == module.get_config()) == (row == "released")


@pytest.mark.parametrize(
    ("row", "message"),
    [("papr", "row .*paper_tokenizer"), ("", "row"), ("dmo/paper", "recipe .*demo")],
)
def test_rows_that_are_not_there(row, message):
    with pytest.raises(UserError, match=message):
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
    ("config", "message"),
    [
        ("configs/ablation.py:papr", ("row", "paper_refinement")),
        # The right head, in the right place: the trunk's weights are what is missing.
        ("configs/gldv2_r101.py:solar", ("config.init.trunk",)),
    ],
)
def test_at_the_command_line(program, refused, tmp_path, config, message):
    arguments = (f"--config={config}", f"--workdir={tmp_path / 'w'}")
    refused(program("train.py", *arguments), *message)
    assert not (tmp_path / "w").exists()
