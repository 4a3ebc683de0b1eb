from typing import get_args

from tokret.config.models import HEADS, TITLES, Trunk, model_title


def test_every_trunk_and_head_has_a_title():
    assert TITLES.keys() == {*get_args(Trunk), *HEADS}


def test_a_model_in_words():
    fields = {"trunk": "efficientnet_lite0", "head": "gem", "dim": 1024}
    assert model_title(fields) == "EfficientNet-Lite0 with GeM, 1,024 dimensions"
    fields |= {"trunk": "resnet50_soa4", "head": "solar"}
    words = "ResNet-50 with second-order attention and SOLAR, 1,024 dimensions"
    assert model_title(fields) == words
