"""Token over ResNet-50 on Google Landmarks v2 (clean): the released recipe.

tokret data prepare gldv2 --manual_dir=DOWNLOADS
tokret convert from-torch resnet50.pth --output=runs/imagenet_resnet50
tokret train --config=configs/gldv2_r50.py --workdir=DIR

As gldv2_r101.py, on the same 1,580,470 photos of 81,313 landmarks, with the smaller
trunk. The released weights reach 79.79 / 62.68 mAP on Revisited Oxford (Medium / Hard).
"""

from ml_collections import ConfigDict

from tokret.configs import gldv2_r101


def get_config(head: str = "token") -> ConfigDict:
    """Returns the config with a head of `heads.HEADS`."""
    config = gldv2_r101.get_config(head)
    config.model.trunk = "resnet50"
    config.init.trunk = "runs/imagenet_resnet50"
    return config
