"""Every head over EfficientNet-Lite0 with its early stages frozen: minutes on a CPU.

tokret convert from-torch efficientnet_lite0 --output=runs/lite0
tokret compare --output=runs/heads

Photos of 128 px and descriptors of 512 dimensions, otherwise as
configs/grocery_token.py. The comparison chooses each head's rates.
"""

from ml_collections import ConfigDict

from tokret.configs import grocery_token, heads


def get_config(head: str = "token") -> ConfigDict:
    """Returns the config with a head of `heads.HEADS`."""
    config = grocery_token.get_config()
    config.augmentation.size = 128
    config.model.dim = 512
    config.model.width = 512
    config.evaluation.longest_side = 128
    return heads.set_head(config, head)
