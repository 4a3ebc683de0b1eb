import pytest

from tokret.errors import UserError
from tokret.evaluation.choices import choose_dataset, make_settings

CONFIG = {
    "evaluation": {
        "longest_side": 64,
        "scales": [1.0, 0.5],
        "batch_size": 2,
        "canvases": 3,
    },
    "run": {"data_dir": "unused"},
}


def test_flags_come_before_the_runs_own_fields():
    assert make_settings(CONFIG, None, None).scales == [1.0, 0.5]
    given = make_settings(CONFIG, 96, ["1", "0.7"])
    assert (given.longest_side, given.scales) == (96, [1.0, 0.7])
    assert given.batch_size == 2 and CONFIG["evaluation"]["longest_side"] == 64


@pytest.mark.parametrize(
    ("side", "scales", "says"),
    [(None, ["1", "x"], "--scales"), (0, None, "longest_side"), (None, [], "scales")],
)
def test_flags_that_cannot_be(side, scales, says):
    with pytest.raises(UserError, match=says):
        make_settings(CONFIG, side, scales)


def test_converted_weights_have_no_photos_of_their_own():
    with pytest.raises(UserError, match="--image_folder"):
        choose_dataset(CONFIG, None, None, None)
    with pytest.raises(UserError, match="--image_folder is empty"):
        choose_dataset(CONFIG, None, "", None)
