"""Every head over EfficientNet-Lite0 with its early stages frozen: minutes on a CPU.

python -m tokret.convert from-torch efficientnet_lite0 --output=runs/lite0
python -m tokret.comparison --output=runs/heads

Photos of 128 px and a trunk of which four of five stages stand still, otherwise as
configs/grocery_token.py. The comparison chooses each head's rates.
"""

from ml_collections import ConfigDict

from configs import grocery_token


def get_config(head: str = "token") -> ConfigDict:
    """Returns the config with a head of `heads.HEADS`."""
    config = grocery_token.get_config(head)
    config.epochs = 6
    config.augmentation.size = 128
    config.model.frozen_stages = 4
    config.evaluation.longest_side = 128
    return config
