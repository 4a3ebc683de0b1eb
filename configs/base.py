"""Every field of a run, with the released recipe's values where they are known.

docs/config.md lists the fields with their types, ranges and meanings, also of other
datasets, heads and optimisers. Fields of `run` and `mesh` may change when a run
resumes, no others.
"""

import dataclasses
from typing import Any

from ml_collections import ConfigDict

from tokret.config.datasets import GoogleLandmarksConfig
from tokret.config.models import TokenConfig
from tokret.config.tree import (
    ArcFaceConfig,
    AugmentationConfig,
    ExtractionConfig,
    InitConfig,
    MeshConfig,
    RunConfig,
    ScheduleConfig,
    SGDConfig,
    ShuffleConfig,
    UpdatesConfig,
)


def fields(group: Any) -> ConfigDict:
    """Returns the fields of a group; those not given have their defaults."""
    return ConfigDict(dataclasses.asdict(group))


def get_config() -> ConfigDict:
    """Returns the base config; the other files start from it."""
    config = ConfigDict()
    config.seed = 0
    config.batch_size = 320  # author's log
    config.epochs = 30

    # Groups with defaults: the released recipe's, here and in evaluation.
    config.data = fields(GoogleLandmarksConfig(name="gldv2"))
    config.augmentation = fields(AugmentationConfig())
    config.shuffle = fields(ShuffleConfig())
    config.model = fields(TokenConfig(trunk="resnet101", dtype="float32"))
    config.init = fields(InitConfig())
    config.evaluation = fields(ExtractionConfig())

    config.arcface = fields(ArcFaceConfig(scale=32.0, margin=0.2))
    config.schedule = fields(
        ScheduleConfig(
            base_lr=0.01,
            # The batch of one GPU, as released (320 images on four cards).
            reference_batch_size=80,
            warmup_init_lr=1e-4,
            warmup_epochs=5.0,
            decay="cosine",
        )
    )
    config.optimiser = fields(
        SGDConfig(momentum=0.9, weight_decay=1e-4, frozen_epochs=0.0)
    )
    config.updates = fields(
        UpdatesConfig(grad_accum_steps=1, ema_decay=0.0, max_nonfinite_steps=10)
    )
    config.mesh = fields(MeshConfig(data=-1, model=1, shard_optimiser=False))
    config.run = fields(
        RunConfig(
            data_dir="~/.cache/tokret",
            compilation_cache="~/.cache/tokret/compiled",
            log_every=50,
            checkpoint_every=1000,
            keep=3,
            keep_best="top1",  # every validation saves a checkpoint
            threads=16,
            max_skipped_fraction=0.01,
        )
    )
    return config
