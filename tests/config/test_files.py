import pytest

from tokret.config.files import load_config
from tokret.config.models import TokenConfig
from tokret.config.parsing import parse
from tokret.config.tree import SGDConfig
from tokret.configs import demo
from tokret.errors import UserError

HEADER = "from tokret.configs import demo\n\n\ndef get_config():\n"


def test_a_path_and_a_packaged_name_are_the_same():
    expected = parse(demo.get_config().to_dict())
    assert load_config("demo") == load_config("configs/demo.py") == expected
    assert load_config("demo:gem").model.head == "gem"
    model = load_config("ablation:demo/tokens_2").model
    assert isinstance(model, TokenConfig) and model.tokens == 2


@pytest.mark.parametrize(
    ("override", "group", "value"),
    [
        ("seed=7", "", 7),
        ("model.remat=true", "model", True),
        ("model.remat=False", "model", False),
        ("model.dim=64", "model", 64),
        ("model.dropout=1e-1", "model", 0.1),
        ("model.trunk=resnet50", "model", "resnet50"),
        ("init.trunk=", "init", ""),
        ("run.data_dir=a=b", "run", "a=b"),
        ("evaluation.scales=(1.0,)", "evaluation", (1.0,)),
        ("evaluation.scales=1,0.7", "evaluation", (1.0, 0.7)),
        ("evaluation.scales=[2, 1]", "evaluation", (2.0, 1.0)),
    ],
)
def test_overrides_have_the_fields_type(override, group, value):
    config = load_config("demo", [f"--config.{override}"])
    found = getattr(config, group) if group else config
    name = override.partition("=")[0].rpartition(".")[2]
    assert getattr(found, name) == value
    assert type(getattr(found, name)) is type(value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.head=gem", "has the fields of token, not of gem: use demo:gem"),
        ("data.name=gldv2", "of synthetic_landmarks, not of gldv2: use a config of "),
        ("optimiser.name=sgd", "momentum is missing; .* not of sgd: use a config of "),
        ("model.head=gme", "config.model.head is 'gme'; it must be one of: [a-z, ]*$"),
    ],
)
def test_a_file_that_does_not_fit_an_override_is_explained(override, message):
    with pytest.raises(UserError, match=message):
        load_config("demo", [f"--config.{override}"])


def test_an_override_may_add_a_field_that_another_override_brings():
    config = load_config(
        "demo", ["--config.optimiser.momentum=0.5", "--config.optimiser.name=sgd"]
    )
    assert isinstance(config.optimiser, SGDConfig)
    assert config.optimiser.momentum == 0.5


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.dmi=3", "config.model.dmi is not a field; did you mean config.model."),
        ("modl.dim=3", "config.modl is not a field; did you mean config.model?"),
        ("sede=3", "config.sede is not a field; did you mean config.seed?"),
        ("model.dim=a", "config.model.dim is 'a'; it must be of type int"),
        ("model.dim=1.5", "config.model.dim is '1.5'; it must be of type int"),
        ("model.remat=maybe", "config.model.remat is 'maybe'; it must be of type bool"),
        ("model.dim=0", "config.model.dim is 0; it must be in [1, 65536]"),
        ("model=3", "config.model is a group of fields"),
        ("seed.x=3", "config.seed is not a group of fields"),
        ("evaluation.scales=1,x", "scales is '1,x'; it must be numbers"),
        ("evaluation.scales=(1,", "scales is '(1,'; it must be numbers"),
        ("evaluation.longest_side=999999999999999999999", "longest_side is 9999999"),
        ("evaluation.batch_size=99999999999999999999", "batch_size is 999999999"),
        ("mesh.data=0", "config.mesh.data is 0; it must be at least 1, or -1: all"),
        (
            "run.data_dir=a\udc80",
            "config.run.data_dir is 'a\\udc80', which is no valid",
        ),
        ("optimiser.name=sgdd", "'sgdd'; it must be one of: adamw, sgd"),
        ("model.head=tokn", "config.model.head is 'tokn'; it must be one of: delg"),
        ("optimiser.momentum=0.9", "config.optimiser.momentum is not a field"),
        ("epochs", "--config.epochs needs a value: --config.epochs=VALUE"),
    ],
)
def test_a_wrong_override_is_one_line(override, message):
    with pytest.raises(UserError) as caught:
        load_config("demo", [f"--config.{override}"])
    assert message in str(caught.value) and "line" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(:\n", "own.py, line 1: invalid syntax"),
        ("import nowhere\n", "own.py, line 1: ModuleNotFoundError: No module named"),
        ("x = y\n", "own.py, line 1: NameError: name 'y' is not defined"),
        ("x = 1\n", "own.py has no function get_config"),
        (f"{HEADER}    return demo.get_config().modle\n", "own.py, line 5: Attribute"),
        (f"{HEADER}    return {{}}\n", "own.py, line 4: get_config returns dict; it"),
        (f"{HEADER}    pass\n", "own.py, line 4: get_config returns NoneType; it must"),
        (f"{HEADER}    assert 0\n", "own.py, line 5: AssertionError"),
        (f"{HEADER}    return {{}}['k']\n", "own.py, line 5: KeyError: 'k'"),
        (f"{HEADER}    raise BaseException('x')\n", "line 5: BaseException: x"),
        (
            f"{HEADER}    config = demo.get_config()\n    config.modle.dim = 3\n",
            "line 6: AttributeError: no field 'modle'; did you mean \"model\" instead",
        ),
        (
            f"{HEADER}    config = demo.get_config()\n    config.batch_size = {{1}}\n",
            "own.py, line 6: batch_size is {1} (set); it must be of type int",
        ),
        (
            f"{HEADER}    config = demo.get_config()\n    del config.model\n"
            "    return config\n",
            "own.py: config.model is missing; docs/config.md lists all fields",
        ),
        (
            "class get_config:\n    to_dict = 3\n",
            "own.py: get_config returns get_config",
        ),
        (f"{HEADER}    import sys\n\n    sys.exit('no')\n", "line 7: SystemExit: no"),
        (f"{HEADER}    return demo.get_config('solr')\n", "it must be one of: delg"),
        (
            f"{HEADER}    config = demo.get_config()\n    config.model.dmi = 3\n"
            "    return config\n",
            "own.py, line 6: config.model.dmi is not a field; did you mean config.mod",
        ),
        (
            f"{HEADER}    config = demo.get_config()\n    config.data.landmarks = 0\n"
            "    return config\n",
            "own.py, line 6: config.data.landmarks is 0; it must be at least 1",
        ),
        (
            f"{HEADER}    config = demo.get_config()\n    del config.model.dim\n"
            "    config.model.dim = {64}\n    return config\n",
            "own.py, line 7: config.model.dim is {64}; it must be of type int",
        ),
    ],
)
def test_a_mistake_in_a_file_is_one_line_with_its_place(tmp_path, text, message):
    path = tmp_path / "own.py"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_config(str(path))
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("dmo", "'dmo' is neither FILE.py nor one of: ablation, demo"),
        ("README.md", "'README.md' is neither FILE.py nor"),
        ("configs/none.py", "configs/none.py is not a file"),
        ("dmeo.py", r"dmeo.py is not a file; did you mean (configs/demo.py|demo)\?"),
        ("configs/base.py:x", "configs/base.py takes no argument after a colon"),
        ("needs.py", "needs an argument after a colon"),
    ],
)
def test_a_wrong_file_or_argument(tmp_path, file, message):
    if file == "needs.py":
        file = str(tmp_path / file)
        with open(file, "w") as opened:
            opened.write("def get_config(head):\n    return head\n")
    with pytest.raises(UserError, match=message):
        load_config(file)


def test_mistakes_end_the_program_with_status_2(program, refused, tmp_path):
    path = tmp_path / "own.py"
    path.write_text("import sys\n\nsys.exit(0)\n")
    refused(
        program("train.py", f"--config={path}", f"--workdir={tmp_path}/w"),
        "own.py, line 3: SystemExit: 0",
    )


def test_null_bytes_are_a_line_with_the_files_name(tmp_path):
    path = tmp_path / "own.py"
    path.write_bytes(b"\0" * 8)
    with pytest.raises(UserError, match="own.py, line 1: .*null bytes"):
        load_config(str(path))


def test_epochs_shorter_than_the_warmup_blame_the_command_line():
    with pytest.raises(UserError) as caught:
        load_config("configs/demo.py", ["--config.epochs=2"])
    assert str(caught.value) == (
        "config.schedule.warmup_epochs is 2.0; it must be less than epochs, 2: add "
        "--config.schedule.warmup_epochs=1, or raise epochs"
    )
    added = "--config.schedule.warmup_epochs=1"
    assert load_config("configs/demo.py", ["--config.epochs=2", added]).epochs == 2
