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
from tokret.config.tree import AugmentationConfig, ExtractionConfig, InitConfig


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
    config.model = fields(TokenConfig(trunk="resnet101", dtype="float32"))
    config.init = fields(InitConfig())
    config.evaluation = fields(ExtractionConfig())

    # Descriptors -> logits.
    config.arcface = ConfigDict()
    config.arcface.scale = 32.0  # released: sqrt(dim)
    config.arcface.margin = 0.2  # in radians

    # Learning rates.
    config.schedule = ConfigDict()
    config.schedule.base_lr = 0.01  # for a batch of 256
    # The batch by which the rate is scaled, / 256: that of one GPU, as released (320
    # images on four cards). 0 takes batch_size.
    config.schedule.reference_batch_size = 80
    config.schedule.warmup_init_lr = 1e-4
    config.schedule.warmup_epochs = 5.0
    config.schedule.decay = "cosine"

    # Updates; `name` decides some of the fields.
    config.optimiser = ConfigDict()
    config.optimiser.name = "sgd"  # or adamw, which has no momentum
    config.optimiser.momentum = 0.9
    config.optimiser.weight_decay = 1e-4
    config.optimiser.max_grad_norm = 0.0
    config.optimiser.trunk_lr_multiplier = 1.0
    config.optimiser.frozen_epochs = 0.0

    # From gradients to the next state.
    config.updates = ConfigDict()
    config.updates.grad_accum_steps = 1
    config.updates.ema_decay = 0.0
    config.updates.max_nonfinite_steps = 10

    # Devices.
    config.mesh = ConfigDict()
    config.mesh.data = -1  # all that are left
    config.mesh.model = 1
    config.mesh.shard_optimiser = False

    # What does not change the result.
    config.run = ConfigDict()
    config.run.data_dir = "~/.cache/tokret"
    config.run.compilation_cache = "~/.cache/tokret/compiled"
    config.run.log_every = 50
    config.run.checkpoint_every = 1000
    config.run.keep = 3
    config.run.keep_best = "top1"  # every validation saves a checkpoint
    config.run.threads = 16
    config.run.max_skipped_fraction = 0.01
    return config
