from pathlib import Path

import pytest

from tokret.config.parsing import parse_saved
from tokret.errors import UserError
from tokret.evaluation.options import (
    choose_checkpoint,
    choose_dataset,
    make_settings,
)

CONFIG = parse_saved(
    {
        "model": {"trunk": "tiny", "head": "gem", "dtype": "float32"},
        "evaluation": {
            "longest_side": 64,
            "scales": [1.0, 0.5],
            "batch_size": 2,
            "canvases": 3,
        },
    }
)


def test_options_come_before_the_runs_own_fields():
    assert make_settings(CONFIG, None, None).scales == (1.0, 0.5)
    given = make_settings(CONFIG, 96, [1.0, 0.7])
    assert (given.longest_side, given.scales) == (96, (1.0, 0.7))
    assert given.batch_size == 2 and CONFIG.evaluation.longest_side == 64


@pytest.mark.parametrize(
    ("side", "scales", "message"),
    [(None, [-1.0], "scales"), (0, None, "longest_side"), (None, [], "scales")],
)
def test_values_that_cannot_be(side, scales, message):
    with pytest.raises(UserError, match=message):
        make_settings(CONFIG, side, scales)


def test_converted_weights_have_no_photos_of_their_own():
    with pytest.raises(UserError, match="image_folder"):
        choose_dataset(CONFIG, None, None, None)
    with pytest.raises(UserError, match="image_folder: is empty"):
        choose_dataset(CONFIG, None, "", None)


def test_a_folder_is_named_by_its_option_and_bad_photos_are_skipped(tmp_path, jpeg):
    choice = (CONFIG, str(tmp_path / "d"), str(tmp_path / "photos"), None)
    (tmp_path / "photos" / "a").mkdir(parents=True)
    with pytest.raises(UserError, match="^image_folder: .* has no class folder"):
        choose_dataset(*choice)
    (tmp_path / "photos" / "a" / "0.jpg").write_bytes(jpeg(0))
    (tmp_path / "photos" / "a" / "1.jpg").write_bytes(b"<html>")
    with pytest.raises(
        UserError, match=r"^image_folder: 1 of 2 .*a/1\.jpg .*set skip_bad$"
    ):
        choose_dataset(*choice)
    with pytest.raises(UserError, match=r"claims .* more than 9 \(max_pixels\)"):
        choose_dataset(*choice, max_pixels=9)
    dataset, name, split = choose_dataset(*choice, skip_bad=True)
    assert (len(dataset.records(split)), name) == (1, "photos")


def test_a_checkpoint_of_a_run_or_one_alone(tmp_path):
    folder = tmp_path / "run" / "checkpoints" / "4"
    folder.mkdir(parents=True)
    run = tmp_path / "run"
    assert choose_checkpoint(run, None, "4") == (folder, tmp_path / "run" / "eval")
    (folder / "_CHECKPOINT_METADATA").touch()
    found = choose_checkpoint(None, folder, None)
    assert found == (folder, tmp_path / "run" / "eval")
    alone = folder.rename(tmp_path / "alone")
    (alone / "_CHECKPOINT_METADATA").unlink()
    with pytest.raises(UserError, match="checkpoint=.*alone is no checkpoint"):
        choose_checkpoint(None, alone, None)
    (alone / "_CHECKPOINT_METADATA").touch()
    assert choose_checkpoint(None, alone, None) == (alone, tmp_path / "eval")
    with pytest.raises(UserError, match="^checkpoint: workdir names a run"):
        choose_checkpoint(run, alone, None)
    with pytest.raises(UserError, match="^step: .* checkpoint names one already"):
        choose_checkpoint(None, alone, "4")
    with pytest.raises(UserError, match="checkpoint=none is not a folder"):
        choose_checkpoint(None, Path("none"), None)


@pytest.mark.parametrize("step", [None, "4"])
def test_a_run_where_a_checkpoint_is_expected(tmp_path, step):
    folder = tmp_path / "checkpoints" / "4"
    folder.mkdir(parents=True)
    with pytest.raises(UserError, match=r"is a run's folder; .* step=4, or .*/4$"):
        choose_checkpoint(None, tmp_path, step)
