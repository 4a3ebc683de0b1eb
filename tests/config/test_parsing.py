import dataclasses
import math

import pytest

from tokret.config.parsing import naming, parse, parse_group, parse_model, parse_saved
from tokret.config.tree import (
    VARIANTS,
    ExtractionConfig,
    InitConfig,
    RunConfig,
    UpdatesConfig,
)
from tokret.configs import demo, gldv2_r50
from tokret.errors import UserError
from tokret.io.remote.urls import SCHEMES


def changed(field, value):
    tree = demo.get_config().to_dict()
    *groups, name = field.split(".")
    fields = tree
    for group in groups:
        fields = fields[group]
    if value is DELETED:
        del fields[name]
    else:
        fields[name] = value
    return tree


DELETED = object()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        # Unknown and missing fields.
        ("model.dmi", 3, "model.dmi is not a field; did you mean config.model.dim?"),
        ("modl", {}, "modl is not a field; did you mean config.model?"),
        ("model.q", 1, "model.q is not a field; docs/config.md lists all fields"),
        ("optimiser.momentum", 0.9, "optimiser.momentum is not a field; docs/"),
        ("model.trunk", DELETED, "model.trunk is missing; docs/config.md lists"),
        ("model.head", DELETED, "model.head is missing"),
        ("epochs", DELETED, "epochs is missing"),
        ("schedule", DELETED, "schedule is missing"),
        # Groups.
        ("schedule", 3, "schedule is 3; it must be a group of fields"),
        ("model", [1], "model is [1]; it must be a group of fields"),
        # Choices.
        (
            "optimiser.name",
            "sgdd",
            "optimiser.name is 'sgdd'; it must be one of: adamw, sgd",
        ),
        ("data.name", ["demo"], "data.name is ['demo']; it must be one of: gldv2,"),
        (
            "model.trunk",
            "resnet",
            "model.trunk is 'resnet'; it must be one of: resnet5",
        ),
        ("schedule.decay", "step", "'step'; it must be one of: cosine, linear"),
        ("run.keep_best", "top2", "it must be one of: '', loss, top1, top5"),
        # Types.
        ("model.dim", "a", "model.dim is 'a'; it must be of type int"),
        ("model.dim", 3.5, "model.dim is 3.5; it must be of type int"),
        ("model.dim", True, "model.dim is True; it must be of type int"),
        ("model.dim", None, "model.dim is None; it must be of type int"),
        ("model.dim", {3}, "model.dim is {3}; it must be of type int"),
        ("model.remat", 1, "model.remat is 1; it must be of type bool"),
        ("model.dropout", "0", "model.dropout is '0'; it must be of type float"),
        ("init.trunk", 3, "init.trunk is 3; it must be of type str"),
        # Ranges.
        ("model.dim", 0, "model.dim is 0; it must be in [1, 65536]"),
        ("batch_size", 0, "batch_size is 0; it must be in [1, 1048576]"),
        ("model.dropout", 1.5, "model.dropout is 1.5; it must be in [0, 0.99]"),
        ("model.dropout", math.nan, "model.dropout is nan; it must be in [0, 0.99]"),
        ("schedule.base_lr", math.nan, "is nan; it must be at least 0 and finite"),
        ("schedule.base_lr", math.inf, "is inf; it must be at least 0 and finite"),
        ("schedule.base_lr", -1, "base_lr is -1; it must be at least 0"),
        ("arcface.margin", -9.0, "arcface.margin is -9.0; it must be in [0, 1.5708]"),
        ("evaluation.scales", [], "scales is []; it must be numbers in [0.05, 20], su"),
        ("evaluation.scales", [1, "a"], "scales is [1, 'a']; it must be numbers in"),
        ("evaluation.scales", (math.nan,), "scales is (nan,); it must be numbers in"),
        ("evaluation.scales", 5, "scales is 5; it must be numbers in"),
        # Several fields together.
        ("model.num_heads", 3, "model.num_heads is 3; it must divide width, 128"),
        (
            "schedule.warmup_epochs",
            16.0,
            "schedule.warmup_epochs is 16.0; it must be less than epochs, 16",
        ),
        ("schedule.restarts", (4, 4), "each must be more than the one before it and"),
        ("schedule.restarts", (16,), "one before it and less than epochs, 16"),
        ("schedule.restarts", (0,), "must be numbers at least 1, such as (1,)"),
        (
            "schedule.restarts",
            (15,),
            "warmup_epochs is 2.0; it must be less than epochs from one restart to the",
        ),
    ],
)
def test_a_wrong_field_is_one_line(field, value, message):
    with pytest.raises(UserError) as caught:
        parse(changed(field, value))
    assert str(caught.value).startswith("config.")
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (UpdatesConfig, {"grad_accum_steps": 0}),
        (UpdatesConfig, {"ema_decay": 1.0}),
        (UpdatesConfig, {"ema_decay": math.nan}),
        (UpdatesConfig, {"max_nonfinite_steps": -1}),
        (ExtractionConfig, {"longest_side": 0}),
        (ExtractionConfig, {"canvases": 13}),
        (ExtractionConfig, {"canvases": -1}),
        (ExtractionConfig, {"scales": ()}),
        (ExtractionConfig, {"scales": ("a",)}),
        (RunConfig, {"keep": 0}),
        (RunConfig, {"max_skipped_fraction": 1.5}),
    ],
)
def test_ranges_of_groups(kind, fields):
    config = parse(demo.get_config().to_dict())
    groups = (config.updates, config.evaluation, config.run)
    good = next(dataclasses.asdict(group) for group in groups if type(group) is kind)
    assert parse_group(kind, good)
    (name,) = fields
    with pytest.raises(UserError, match=f"^{name} is "):
        parse_group(kind, good | fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "gldv2", "manual": "x"}, "did you mean config.data.manual_dir"),
        ({"name": "roxford5k", "resize": 512}, "config.data.resize is not a field"),
        ({"name": "synthetic_landmarks", "landmark": 3}, "mean config.data.landmarks"),
        ({"name": "image_folder", "benchmark_fraction": 1.0}, r"must be in \[0, 1\)"),
        (
            {"name": "revisitop1m", "manual_dir": "gs://b/d"},
            "config.data.manual_dir: .* is a URL",
        ),
    ],
)
def test_fields_of_datasets(fields, message):
    with pytest.raises(UserError, match=message):
        parse(demo.get_config().to_dict() | {"data": fields})


@pytest.mark.parametrize(
    ("head", "fields", "message"),
    [
        ("token", {"num_heads": 7}, "num_heads is 7; it must divide width, 1024"),
        ("token", {"tokens": 0}, r"tokens is 0; it must be in \[1, 1024\]"),
        ("token", {"dim": 2**40}, r"dim is 1099511627776; it must be in \[1, 65536\]"),
        ("token", {"query_init_std": math.nan}, "query_init_std is nan"),
        ("token", {"tokenizer": "papr"}, "tokenizer is 'papr'; .* released, paper"),
        ("token", {"refinement": "papr"}, "refinement is 'papr'; .* released, paper"),
        ("token", {"initialiser": "x"}, "initialiser is 'x'; .* released, lossless"),
        ("token", {"dims": 5}, "did you mean dim"),
        ("gem", {"p": 0.5}, "p is 0.5; it must be in .1, 1000."),
        ("gem", {"p": math.nan}, "p is nan"),
        ("gem", {"dim": 0}, "dim is 0"),
        ("rmac", {"levels": 0}, "levels is 0; it must be in .1, 10."),
        ("netvlad", {"clusters": 0}, "clusters is 0"),
        ("netvlad", {"dim": 10, "num_heads": 4}, "num_heads is 4; it must divide dim"),
    ],
)
def test_fields_of_heads(head, fields, message):
    with pytest.raises(UserError, match=message):
        parse_model({"trunk": "tiny", "head": head, "dtype": "float32", **fields})


def test_integers_become_floats_and_lists_tuples():
    config = parse(changed("evaluation.scales", [1, 2]))
    assert config.evaluation.scales == (1.0, 2.0)
    model = dataclasses.asdict(parse(changed("model.dropout", 0)).model)
    assert isinstance(model["dropout"], float)


def test_fields_with_defaults_may_be_omitted():
    model = parse_model({"trunk": "tiny", "head": "token", "dtype": "float32"})
    assert (model.dim, model.remat) == (1024, False)
    assert parse(changed("data.seed", DELETED)).data.seed == 0


def test_groups_are_of_the_class_that_a_field_names():
    for head, kind in VARIANTS["model"][1].items():
        assert type(parse(demo.get_config(head).to_dict()).model) is kind
    tree = gldv2_r50.get_config().to_dict()
    for name in ("roxford5k", "oxford5k", "revisitop1m"):
        config = parse({**tree, "data": {"name": name}})
        assert type(config.data) is VARIANTS["data"][1][name]


def test_a_checkpoint_and_a_trunk_exclude_each_other():
    assert InitConfig(trunk="runs/lite0").checkpoint == ""
    with pytest.raises(UserError, match="^config.init.checkpoint .* must be empty"):
        parse(changed("init", {"checkpoint": "a", "trunk": "b"}))


def test_a_stored_config_is_checked_as_strictly():
    with pytest.raises(UserError, match="config.modle is not a field; did you mean"):
        parse_saved({"modle": {}})
    for nothing in (None, 3, [], "x"):
        with pytest.raises(UserError, match="it must be a group of fields"):
            parse_saved(nothing)


def test_errors_of_arguments_name_the_field():
    with pytest.raises(UserError, match="^config.updates.ema_decay is 2"):
        with naming("config.updates", UpdatesConfig):
            raise UserError("ema_decay is 2")
    with pytest.raises(UserError, match="^a file is missing"):
        with naming("config.updates", UpdatesConfig):
            raise UserError("a file is missing")


def test_long_values_are_cut_short():
    with pytest.raises(UserError) as caught:
        parse(changed("model.dim", "x" * 10**6))
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("digits", [400, 5000])
def test_numbers_of_any_size_are_refused_in_a_line(digits):
    tree = demo.get_config().to_dict() | {"epochs": 10**digits}
    with pytest.raises(UserError, match=r"config\.epochs is .*; it must be in \[1, "):
        parse(tree)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("init.checkpoint", "memory://bucket/run", ""),
        ("run.compilation_cache", "memory://bucket/compiled", ""),
        ("init.trunk", "ftp://host/x", "config.init.trunk: 'ftp://host/x': ftp://"),
        ("init.trunk", "gs:/b/x", "config.init.trunk: 'gs:/b/x' has one slash"),
        ("init.trunk", "gs://", "config.init.trunk: 'gs://' names no bucket"),
        ("augmentation.size", "gs://bucket/x", "config.augmentation.size: 'gs://buc"),
    ],
)
def test_some_fields_take_urls(field, value, message):
    if message:
        with pytest.raises(UserError, match=message):
            parse(changed(field, value))
        return
    group, name = field.split(".")
    assert getattr(getattr(parse(changed(field, value)), group), name) == value


def test_a_stored_config_may_have_urls_that_cannot_be_used_here(monkeypatch):
    monkeypatch.setitem(SCHEMES, "gs", ("gs", "no_such_module", "'tokret[gcs]'"))
    tree = changed("init.checkpoint", "gs://bucket/run")
    assert parse_saved(tree).init.checkpoint == "gs://bucket/run"
    with pytest.raises(UserError, match="config.init.checkpoint: .* needs no_such"):
        parse(tree)
