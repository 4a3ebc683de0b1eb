"""The tree of a config: its groups and their fields.

A field with a default may be omitted in a file. docs/config.md lists all fields.
"""

import dataclasses
from typing import Annotated, Any, Literal

from msgspec import Meta

from tokret.config.annotations import integer, real, text
from tokret.config.datasets import DATASETS, DataConfig
from tokret.config.models import HEADS, ModelConfig
from tokret.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """How training photos vary."""

    size: Annotated[int, integer("side of the training square in pixels", 1, 2**14)] = (
        512
    )
    min_area: Annotated[
        float, real("smallest fraction of the photo's area in a crop", 0.01, 1)
    ] = 0.2
    flip: Annotated[float, real("probability of a horizontal flip", 0, 1)] = 0.5
    jitter: Annotated[float, real("probability of a change of colours", 0, 1)] = 0.8
    brightness: Annotated[float, real("factor from 1 +- this", 0, 10)] = 0.4
    contrast: Annotated[float, real("factor from 1 +- this", 0, 10)] = 0.4
    saturation: Annotated[float, real("factor from 1 +- this", 0, 10)] = 0.2
    hue: Annotated[float, real("rotation of hues, in turns, from +- this", 0, 0.5)] = (
        0.1
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class InitConfig:
    """Weights of a new run; neither: random ones, by the seed."""

    checkpoint: Annotated[
        str, text("folder of a run or conversion: its model, without classifier")
    ] = ""
    trunk: Annotated[
        str, text("folder of a run or conversion: its trunk alone, as ImageNet's")
    ] = ""

    def __post_init__(self) -> None:
        if self.checkpoint and self.trunk:
            raise UserError(
                "checkpoint has a trunk too, so trunk must be empty where it is given"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArcFaceConfig:
    """Descriptors -> logits."""

    scale: Annotated[
        float, real("factor of the cosines; released: sqrt(dim)", 1e-3, 1e6)
    ]
    margin: Annotated[float, real("margin in radians", 0, 1.5707963267948966)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """Learning rates."""

    base_lr: Annotated[float, real("peak learning rate for a batch of 256")]
    reference_batch_size: Annotated[
        int, integer("learning rates are scaled by this / 256; 0: by batch_size")
    ]
    warmup_init_lr: Annotated[
        float, real("learning rate of the first step, for a batch of 256")
    ]
    warmup_epochs: Annotated[float, real("epochs of linear warm-up")]
    decay: Annotated[Literal["cosine", "linear"], text("of the rate, to 0 at the end")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimiserConfig:
    """Updates: the fields of every optimiser."""

    name: Annotated[str, text("the optimiser")]
    weight_decay: Annotated[float, real("not on biases and one-dimensional parameters")]
    max_grad_norm: Annotated[
        float, real("clip gradients to this global norm; 0: never")
    ] = 0.0
    trunk_lr_multiplier: Annotated[
        float, real("factor of the trunk's learning rate", 0, 1e3)
    ] = 1.0
    frozen_epochs: Annotated[
        float, real("first epochs in which the trunk is frozen", 0, 1e6)
    ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SGDConfig(OptimiserConfig):
    """SGD with Nesterov momentum."""

    name: Literal["sgd"] = "sgd"
    momentum: Annotated[float, real("Nesterov momentum", 0, 1)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamWConfig(OptimiserConfig):
    """AdamW."""

    name: Literal["adamw"] = "adamw"


@dataclasses.dataclass(frozen=True, kw_only=True)
class UpdatesConfig:
    """From gradients to the next state."""

    grad_accum_steps: Annotated[
        int, integer("micro-batches of a batch, one after the other", 1)
    ]
    ema_decay: Annotated[
        float, real("decay of an EMA of the weights, as 0.999; 0: none", 0, 0.999999)
    ]
    max_nonfinite_steps: Annotated[
        int, integer("consecutive non-finite steps that are skipped, not fatal")
    ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """Devices."""

    data: Annotated[int, integer("devices that split the images; -1: all others", -1)]
    model: Annotated[int, integer("devices that split the class matrix", 1)]
    shard_optimiser: Annotated[bool, text("split momentum and EMA over all devices")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExtractionConfig:
    """Photos -> descriptors in evaluation, by default as the authors do (test.py)."""

    longest_side: Annotated[
        int, integer("of a photo in pixels; larger ones are shrunk", 1)
    ] = 1024
    scales: Annotated[
        tuple[Annotated[float, Meta(ge=0.05, le=20)], ...],
        Meta(description="factors of the image size, in [0.05, 20]", min_length=1),
    ] = (1.0, 2**0.5, 2**-0.5)
    batch_size: Annotated[
        int, integer("views a batch; a multiple of a host's devices", 1)
    ] = 8
    canvases: Annotated[
        int, integer("most padded shapes, each of which is compiled", 1, 12)
    ] = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What does not change the result."""

    data_dir: Annotated[str, text("folder of prepared datasets")]
    compilation_cache: Annotated[str, text('folder of compiled programs; "": none')]
    log_every: Annotated[int, integer("steps between lines of metrics", 1)]
    checkpoint_every: Annotated[
        int, integer("steps between checkpoints; the last step has one too", 1)
    ]
    keep: Annotated[int, integer("newest checkpoints that are kept", 1)]
    keep_best: Annotated[
        Literal["", "loss", "top1", "top5"],
        text('validation metric by which the best checkpoint is kept too; "": none'),
    ]
    threads: Annotated[int, integer("threads that decode and augment", 1)]
    max_skipped_fraction: Annotated[
        float, real("fraction of an epoch's photos that may fail to decode", 0, 1)
    ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetIdentity:
    """What a resumed run must find again; recorded by training."""

    labels: Annotated[str, text("digest of the classes' names")]
    classes: Annotated[int, integer("classes", 1)]
    photos: Annotated[dict[str, int], text("number of photos by split")]


# Groups whose class depends on one of their fields: that field, and classes by value.
VARIANTS: dict[str, tuple[str, dict[str, type[Any]]]] = {
    "data": ("name", DATASETS),
    "model": ("head", HEADS),
    "optimiser": ("name", {"adamw": AdamWConfig, "sgd": SGDConfig}),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """What a model is and how it extracts descriptors; all of a converted model."""

    seed: Annotated[
        int,
        integer("decides initial weights, order, augmentation and dropout", 0, 2**32),
    ] = 0
    model: ModelConfig
    init: InitConfig = InitConfig()  # noqa: RUF009 (frozen)
    evaluation: ExtractionConfig = ExtractionConfig()  # noqa: RUF009 (frozen)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(InferenceConfig):
    """All of a training run."""

    batch_size: Annotated[int, integer("images of a batch, on all devices", 1, 2**32)]
    epochs: Annotated[int, integer("passes over the training photos", 1, 2**32)]
    data: DataConfig
    augmentation: AugmentationConfig
    arcface: ArcFaceConfig
    schedule: ScheduleConfig
    optimiser: OptimiserConfig
    updates: UpdatesConfig
    mesh: MeshConfig
    run: RunConfig
    dataset: DatasetIdentity | None = None

    def __post_init__(self) -> None:
        if self.schedule.warmup_epochs >= self.epochs:
            raise UserError(
                f"schedule.warmup_epochs is {self.schedule.warmup_epochs}; it must be "
                f"less than epochs, {self.epochs}"
            )
