"""Token with a tiny trunk on synthetic landmarks: a few minutes on two CPU cores.

tokret train --config=configs/demo.py --workdir=DIR
tokret eval --workdir=DIR --baselines
"""

from ml_collections import ConfigDict

from tokret.config.datasets import SyntheticLandmarksConfig
from tokret.configs import base, heads


def get_config(head: str = "token") -> ConfigDict:
    """Returns the config with a head of `heads.HEADS`."""
    config = base.get_config()
    config.batch_size = 32
    config.epochs = 16

    # Photos of each class; docs/config.md lists the benchmark's defaults.
    config.data = base.fields(
        SyntheticLandmarksConfig(
            name="synthetic_landmarks", landmarks=128, photos=16, validation_photos=2
        )
    )

    config.augmentation.size = 80

    config.model.trunk = "tiny"
    config.model.dim = 256
    config.model.width = 128
    config.model.num_heads = 4
    # From scratch and in minutes: models/heads/token/tokenizer.py explains the small
    # queries; nothing overfits in so short a time.
    config.model.query_init_std = 0.09
    config.model.dropout = 0.0
    config.model.drop_path = 0.0
    config.arcface.scale = 16.0
    config.arcface.margin = 0.1

    config.optimiser.name = "adamw"
    del config.optimiser.momentum
    config.optimiser.weight_decay = 1e-3
    config.schedule.base_lr = 1e-3
    config.schedule.reference_batch_size = 256  # base_lr as it is
    config.schedule.warmup_init_lr = 1e-5
    config.schedule.warmup_epochs = 2.0

    config.evaluation.longest_side = 128
    config.evaluation.batch_size = 32
    config.evaluation.canvases = 2

    config.run.log_every = 20
    config.run.checkpoint_every = 256
    return heads.set_head(config, head)
