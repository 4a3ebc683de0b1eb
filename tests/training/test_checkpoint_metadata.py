import dataclasses
import json
import math
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tokret
from tokret.config import stored
from tokret.errors import UserError
from tokret.training.checkpoint_digests import FILE as DIGESTS
from tokret.training.checkpoint_digests import UnreadableError, write_digests
from tokret.training.checkpoint_metadata import (
    FILE,
    LARGEST,
    check_pixels,
    make_metadata,
    read_config,
    read_metadata,
)


@pytest.fixture
def write(tmp_path):
    """Returns a function that writes a checkpoint's metadata."""
    checkpoint = tmp_path / "checkpoints" / "4"
    checkpoint.mkdir(parents=True)

    def written(found):
        text = found if isinstance(found, str) else json.dumps(found)
        (checkpoint / FILE).write_text(text)
        write_digests(checkpoint)
        return checkpoint

    return written


@pytest.fixture
def whole(config):
    return {
        "custom_metadata": make_metadata(config, 4, {"loss": math.nan, "top1": 0.5})
    }


def test_what_was_written_comes_back(write, whole, config):
    found = read_metadata(write(whole))
    assert found.step == 4 and found.config == config
    assert found.tokret == tokret.__version__
    assert found.measured["top1"] == 0.5 and math.isnan(found.measured["loss"])
    assert found.pixels["mean"] == [0.485, 0.456, 0.406]


def test_a_checkpoint_under_another_steps_name_is_damaged(write, whole, tmp_path):
    checkpoint = write(whole)
    other = checkpoint.rename(checkpoint.with_name("99"))
    for read in (read_metadata, read_config):
        with pytest.raises(
            UnreadableError, match="it is step 4 under the name 99.: rename or remove"
        ):
            read(other)
    assert read_metadata(other.rename(tmp_path / "99")).step == 4  # not in a run


@pytest.mark.parametrize("nothing", [None, {}])
def test_a_checkpoint_of_another_program_is_refused(nothing, write, config, tmp_path):
    checkpoint = write({"item_handlers": {}, "custom_metadata": nothing})
    with pytest.raises(UnreadableError, match="no metadata of tokret"):
        read_metadata(checkpoint)
    (checkpoint / DIGESTS).unlink()
    stored.save(config, tmp_path / "config.json")
    for read in (read_metadata, read_config):
        with pytest.raises(UserError, match="4: written by another program; ") as e:
            read(checkpoint)
        assert not isinstance(e.value, UnreadableError)


def test_the_runs_config_must_mean_the_same_model(write, whole, config, tmp_path):
    checkpoint = write(whole)
    assert read_config(checkpoint) == config
    settings = dataclasses.replace(config.evaluation, longest_side=48)
    evaluated = dataclasses.replace(config, evaluation=settings)
    stored.save(evaluated, tmp_path / "config.json")
    assert read_config(checkpoint) == evaluated
    other = dataclasses.replace(config, model=dataclasses.replace(config.model, p=1.0))
    stored.save(other, tmp_path / "config.json")
    with pytest.raises(UserError, match="a model with p 3.0, but the model's p is 1.0"):
        read_config(checkpoint)
    checkpoint.parent.rename(tmp_path / "elsewhere")
    assert read_config(tmp_path / "elsewhere" / "4") == config


def test_a_newer_format_is_no_damage(write, whole):
    whole["custom_metadata"] |= {"format": 2, "tokret": "9.1", "config": "new"}
    with pytest.raises(
        UserError, match=r"format 2, which tokret 9.1 wrote.*newer"
    ) as e:
        read_metadata(write(whole))
    assert not isinstance(e.value, UnreadableError)


def test_images_scaled_in_another_way_are_refused(write, whole, config):
    whole["custom_metadata"]["pixels"]["mean"] = [0.5, 0.5, 0.5]
    with pytest.raises(UserError, match=r"0.5, 0.5, 0.5.*normalises them by.*0.485"):
        check_pixels(write(whole), config)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[1]",
        "7",
        "[" * 100_000,
        '{"custom_metadata": []}',
        '{"custom_metadata": {"format": true}}',
        '{"custom_metadata": {"format": 1}}',
        '{"custom_metadata": ' + '{"a":' * 20 + "1" + "}" * 21,
        " " * (LARGEST + 1),
    ],
)
def test_damage_is_named(write, text):
    with pytest.raises(UnreadableError, match=r"checkpoints/4: damaged \(_CHECK"):
        read_metadata(write(text))


@pytest.mark.parametrize("name", ["step", "measured", "config", "pixels", "tokret"])
@pytest.mark.parametrize("value", [None, "x", [1], {"top1": "high"}, {"a": None}])
def test_types_are_checked(write, whole, name, value):
    good = {"config": dict, "pixels": dict, "tokret": str}.get(name, ())
    if isinstance(value, good):
        return
    whole["custom_metadata"][name] = value
    with pytest.raises(UnreadableError, match=f"damaged .*{name}"):
        read_metadata(write(whole))


def test_links_and_pipes_are_not_followed(write, whole, tmp_path):
    checkpoint = write(whole)
    (checkpoint / FILE).rename(tmp_path / "other")
    (checkpoint / FILE).symlink_to(tmp_path / "other")
    with pytest.raises(UnreadableError):
        read_metadata(checkpoint)
    (checkpoint / FILE).unlink()
    os.mkfifo(checkpoint / FILE)
    with pytest.raises(UnreadableError):
        read_metadata(checkpoint)
    (checkpoint / FILE).unlink()
    with pytest.raises(UnreadableError):
        read_metadata(checkpoint)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner),
)


@settings(deadline=None, max_examples=50)
@given(JSON, JSON)
def test_no_json_breaks_the_reader(tmp_path_factory, config, found):
    checkpoint = tmp_path_factory.mktemp("hostile")
    description = {"format": 1, "tokret": "", "step": 1, "pixels": {}, "measured": {}}
    for content in (
        found,
        {"custom_metadata": found},
        description | {"config": config},
    ):
        (checkpoint / FILE).write_text(json.dumps({"custom_metadata": content}))
        write_digests(checkpoint)
        try:
            read_config(checkpoint)
        except UserError:
            pass
