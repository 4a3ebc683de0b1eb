import subprocess
import sys
from pathlib import Path

import pytest

from tokret.config.datasets import DATASETS as CONFIGS
from tokret.config.parsing import parse_group
from tokret.data import datasets
from tokret.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def test_names_and_numbers_are_checked(tmp_path):
    for options, message in (
        ({"name": "imagenet"}, "image_folder, oxford5k, paris6k, revisitop1m"),
        ({"name": "gldv2"}, "manual_dir: .* no prepared gldv2 clean-original"),
        ({"name": "synthetic_landmarks", "landmarks": 0}, "landmarks is 0"),
        ({"name": "synthetic_landmarks", "workers": -1}, "workers is -1"),
    ):
        with pytest.raises(UserError, match=message):
            datasets.prepare(str(tmp_path), **options)
    assert not list(tmp_path.iterdir())


def test_unknown_fields_are_named():
    for name, field, message in (
        ("gldv2", "manual", "data.manual is not .* did you mean data.manual_dir"),
        ("roxford5k", "resize", "data.resize is not a field"),
        ("image_folder", "rot", "data.rot is not .* did you mean data.root"),
        ("synthetic_landmarks", "landmark", "did you mean data.landmarks"),
    ):
        with pytest.raises(UserError, match=message):
            parse_group(CONFIGS[name], {"name": name, field: "x"}, "data")


def test_preparing_logs_its_line_once(photo_folder, tmp_path, capsys):
    options = {"name": "image_folder", "root": str(photo_folder)}
    datasets.prepare(str(tmp_path), **options)
    captured = capsys.readouterr()
    assert captured.out == ""
    note, line = captured.err.splitlines()
    assert note.endswith("18 photos of 3 classes: ash, birch, café au lait")
    assert line.startswith("preparing image_folder: 18 photos into ")
    datasets.prepare(str(tmp_path), **options)
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == f"{note}\n"


def test_no_dataset_is_imported_before_it_is_chosen():
    code = (
        "import sys, tokret.data.datasets as d; "
        "print([m for m in sys.modules if m.startswith(("
        "'tokret.data.synthetic', 'tokret.data.revisited', 'tensorflow_datasets'))]); "
        "print(all(d.prepare_function(n) for n in d.DATASETS))"
    )
    out = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True)
    assert out == "[]\nTrue\n"
