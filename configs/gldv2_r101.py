"""Token over ResNet-101 on Google Landmarks v2 (clean): the released recipe.

tokret data prepare gldv2 --manual_dir=DOWNLOADS
tokret convert from-torch resnet101.pth --output=runs/imagenet_resnet101
tokret train --config=configs/gldv2_r101.py --workdir=DIR

DOWNLOADS has train_clean.csv and images_000.tar to images_499.tar: 1,580,470 photos
of 81,313 landmarks, of which one in five is for validation. With --resize=512 to the
first command and --config.data.resize=512 to the second they take a tenth of the space.

30 epochs of 320 images a step at 512 px (the author's split: 4,003 steps an epoch),
from ImageNet weights. The author's log: 1.67 s a step on four 24 GB cards. The paper
reports 82.28 / 66.57 mAP on Revisited Oxford (Medium / Hard); not measured here.
"""

from ml_collections import ConfigDict

from tokret.configs import base, heads


def get_config(head: str = "token") -> ConfigDict:
    """Returns the config with a head of `heads.HEADS`."""
    config = base.get_config()
    config.model.trunk = "resnet101"
    config.init.trunk = "runs/imagenet_resnet101"
    config.model.dtype = "bfloat16"
    return heads.set_head(config, head)
