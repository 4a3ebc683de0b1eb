"""Token with a tiny trunk on synthetic landmarks: a few minutes on two CPU cores.

python train.py --config=configs/demo.py --workdir=DIR
python eval.py --workdir=DIR --baselines
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """Returns the config."""
    config = base.get_config()
    config.batch_size = 64
    config.epochs = 30

    config.data.name = "synthetic_landmarks"

    config.augmentation.size = 96

    config.model.trunk = "tiny"
    config.model.dim = 256
    config.model.width = 128
    config.model.heads = 4
    config.arcface.scale = 16.0

    config.schedule.base = 0.2
    config.schedule.batch = 0
    config.schedule.warmup_epochs = 2.0

    config.evaluation.longest_side = 160
    config.evaluation.batch_size = 32
    config.evaluation.canvases = 4

    config.run.log_every = 20
    config.run.checkpoint_every = 200
    return config
