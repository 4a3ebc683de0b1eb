"""Token over ResNet-101 on Google Landmarks v2 (clean): the released recipe.

python train.py --config=configs/gldv2_r101.py --workdir=DIR

30 epochs of 4,003 steps of 320 images at 512 px, from ImageNet weights. The author's
log: 1.67 s a step on four 24 GB cards. The paper reports 82.28 / 66.57 mAP on Revisited
Oxford (Medium / Hard); not measured here, since the dataset's builder is still to come.
"""

from ml_collections import ConfigDict

from configs import base, heads


def get_config(head: str = "token") -> ConfigDict:
    """Returns the config with a head of `heads.HEADS`."""
    config = base.get_config()
    config.model.trunk = "resnet101"
    config.model.dtype = "bfloat16"
    return heads.set_head(config, head)
