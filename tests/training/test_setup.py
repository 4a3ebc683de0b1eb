"""What a run refuses before it writes anything."""

from pathlib import Path

import pytest

from tokret.config.files import load_config
from tokret.errors import UserError
from tokret.training.setup import prepare_run

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def config(tmp_path):
    """Returns a function that makes the config of a folder of photos."""

    def make(root):
        fields = (
            f"--config.data.root={root}",
            f"--config.run.data_dir={tmp_path / 'd'}",
        )
        return load_config(str(ROOT / "configs" / "image_folder.py"), fields)

    return make


def test_a_single_class_is_refused(config, tmp_path, jpeg, capsys):
    (tmp_path / "photos" / "all").mkdir(parents=True)
    for seed in range(3):
        (tmp_path / "photos" / "all" / f"{seed}.jpg").write_bytes(jpeg(seed))
    with pytest.raises(UserError, match="are of one class, all: the loss is 0"):
        prepare_run(config(tmp_path / "photos"))
    assert "3 photos of 1 class: all" in capsys.readouterr().err


def test_a_bad_photo_is_skipped_by_a_field(config, tmp_path, jpeg):
    for label in "ab":
        (tmp_path / "photos" / label).mkdir(parents=True)
        (tmp_path / "photos" / label / "0.jpg").write_bytes(jpeg(0))
    (tmp_path / "photos" / "a" / "1.jpg").write_bytes(b"")
    with pytest.raises(
        UserError, match=r"^image_folder: 1 of 3 .*or set config\.data\.skip_bad$"
    ):
        prepare_run(config(tmp_path / "photos"))


def test_a_folder_without_classes_names_its_field(config, tmp_path):
    with pytest.raises(UserError, match=r"config\.data\.root: .* has no class folder"):
        prepare_run(config(tmp_path))
