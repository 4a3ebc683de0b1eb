"""Token over EfficientNet-Lite0 on one's own photos, from ImageNet weights, on a CPU.

tokret convert from-torch efficientnet_lite0 --output=runs/lite0
tokret train --config=configs/grocery_token.py --workdir=DIR
tokret eval --workdir=DIR

The photos are the Grocery Store Dataset's (2,936 of 81 classes). Any folder of class
folders will do: --config.data.root=PHOTOS for those to train on, and other classes in
--config.data.benchmark_root=OTHER_PHOTOS to evaluate on. docs/groceries.md
explains how the values were chosen, nearly all on classes held out of those trained on.
"""

from ml_collections import ConfigDict

from tokret.config.datasets import ImageFolderConfig
from tokret.configs import base, heads


def get_config(head: str = "token") -> ConfigDict:
    """Returns the config with a head of `heads.HEADS`."""
    config = base.get_config()
    config.batch_size = 32
    config.epochs = 6

    config.data = base.fields(ImageFolderConfig(name="image_folder"))
    config.data.root = "../shared/grocery/train"  # 41 classes
    config.data.benchmark_root = "../shared/grocery/unseen"  # 40 others
    config.data.validation_fraction = 0.0  # no photo can be spared

    config.augmentation.size = 224
    config.augmentation.min_area = 0.25
    config.augmentation.brightness = 0.3
    config.augmentation.contrast = 0.3
    config.augmentation.hue = 0.03  # colours distinguish fruit

    config.model.trunk = "efficientnet_lite0"
    config.init.trunk = "runs/lite0"
    # Of five; ImageNet's early stages retrieve more, in a third of the time.
    config.model.frozen_stages = 4
    # The head starts from the trunk's features, and its queries start small
    # (models/heads/token/head.py, models/heads/token/tokenizer.py).
    config.model.initialiser = "lossless"
    config.model.query_init_std = 0.05
    config.model.dropout = 0.0
    config.model.drop_path = 0.0

    config.schedule.base_lr = 0.0005
    config.schedule.reference_batch_size = 256  # base_lr as it is
    config.schedule.warmup_epochs = 1.0
    # The trunk learns at 0.01; a head that learns as fast retrieves less.
    config.optimiser.trunk_lr_multiplier = 20.0

    config.evaluation.longest_side = 224
    config.evaluation.scales = (1.0,)
    config.evaluation.batch_size = 32
    config.evaluation.canvases = 4

    config.run.log_every = 10
    config.run.checkpoint_every = 100
    config.run.keep = 1
    return heads.set_head(config, head)
