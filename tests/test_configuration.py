import json

import pytest

from tokret import arguments, configuration
from tokret.errors import UserError


def function(*, dim, margin=0.2):
    return dim, margin


def test_fields_become_arguments():
    call = configuration.call
    assert call(function, "model", {"dim": 3}) == (3, 0.2)
    assert call(function, "model", {"margin": 0.1}, dim=4) == (4, 0.1)
    for fields, says in (
        ({"dmi": 3}, r"config\.model\.dmi .* did you mean config\.model\.dim\?"),
        ({"dim": 3, "q": 1}, r"config\.model\.q is a field that nothing reads"),
        ({}, r"config\.model\.dim is missing"),
    ):
        with pytest.raises(UserError, match=says):
            call(function, "model", fields)
    with pytest.raises(UserError, match=r"config\.model\.dim"):
        call(function, "model", {"dim": 3}, dim=4)


def test_names_are_looked_up():
    assert arguments.choose({"a": 1}, "a", "f") == 1
    with pytest.raises(UserError, match="f is 'b'; it must be one of: a"):
        arguments.choose({"a": 1}, "b", "f")


def test_a_config_is_settled_once(tmp_path):
    path = tmp_path / "config.json"
    config = {"seed": 0, "model": {"dim": 3}, "run": {"log_every": 5}}
    configuration.settle(config, path, ("run",))
    assert configuration.load(path) == config
    changed = {**config, "run": {"log_every": 9}}
    configuration.settle(changed, path, ("run",))
    assert configuration.load(path) == changed
    for other, says in (
        ({**config, "seed": 1}, r"config\.seed: 0 -> 1"),
        ({**config, "model": {"dim": 4}}, r"config\.model\.dim: 3 -> 4"),
        ({**config, "x": 1}, r"config\.x: None -> 1"),
    ):
        with pytest.raises(UserError, match=says):
            configuration.settle(other, path, ("run",))
    assert configuration.load(path) == changed
    assert [file.name for file in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.parametrize("text", ["{", "[1]", "\xff", "[" * 100_000])
def test_what_is_no_config_is_named(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_bytes(text.encode("latin1"))
    with pytest.raises(UserError, match=r"config\.json"):
        configuration.load(path)


def test_every_config_file_has_the_base_fields():
    from configs import base, demo, gldv2_r50, gldv2_r101, image_folder

    fields = set(base.get_config())
    for file in (demo, gldv2_r50, gldv2_r101, image_folder):
        config = file.get_config()
        assert set(config) == fields, file.__name__
        json.dumps(config.to_dict())
