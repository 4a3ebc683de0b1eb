"""The tree of a config: its groups and their fields.

A field with a default may be omitted in a file. docs/config.md lists all fields.
"""

import dataclasses
import itertools
from typing import Annotated, Any, Literal

from msgspec import Meta

from tokret.config.annotations import documented, integer, location, real, text
from tokret.config.datasets import DATASETS, DataConfig
from tokret.config.models import HEADS, ModelConfig
from tokret.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """How training photos vary."""

    size: int = integer(512, "side of the training square in pixels", 1, 2**14)
    min_area: float = real(0.2, "smallest crop, as a fraction of the area", 0.01, 1)
    flip: float = real(0.5, "probability of a horizontal flip", 0, 1)
    jitter: float = real(0.8, "probability of a change of colours", 0, 1)
    brightness: float = real(0.4, "factor from 1 +- this", 0, 10)
    contrast: float = real(0.4, "factor from 1 +- this", 0, 10)
    saturation: float = real(0.2, "factor from 1 +- this", 0, 10)
    hue: float = real(0.1, "rotation of hues, in turns, from +- this", 0, 0.5)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShuffleConfig:
    """The order of the training photos: docs/object-storage.md compares the two."""

    order: Literal["global", "windows"] = text(
        "global", "shuffle all photos, or those of a process's window of shards"
    )
    window_gib: float = real(
        16.0, "GiB of shards in a window of each process, for windows", 1e-6, 2**20
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class InitConfig:
    """Weights of a new run; neither: random ones, by the seed."""

    checkpoint: str = location(
        "", "folder or URL of a run or conversion: its model, without classifier"
    )
    trunk: str = location(
        "", "folder or URL of a run or conversion: its trunk alone, as ImageNet's"
    )

    def __post_init__(self) -> None:
        if self.checkpoint and self.trunk:
            raise UserError(
                "checkpoint has a trunk too, so trunk must be empty where it is given"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArcFaceConfig:
    """Descriptors -> logits."""

    scale: float = real(..., "factor of the cosines; released: sqrt(dim)", 1e-3, 1e6)
    margin: float = real(..., "margin in radians", 0, 1.5707963267948966)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """Learning rates."""

    base_lr: float = real(..., "peak learning rate for a batch of 256")
    reference_batch_size: int = integer(
        ..., "learning rates are scaled by this / 256; 0: by batch_size"
    )
    warmup_init_lr: float = real(..., "first step's rate for a batch of 256")
    warmup_epochs: float = real(..., "epochs of linear warm-up")
    decay: Literal["cosine", "linear"] = text(..., "of the rate, to 0 at the end")
    restarts: tuple[Annotated[int, Meta(ge=1)], ...] = documented(
        (), Meta(description="epochs after which warm-up and decay start again")
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimiserConfig:
    """Updates: the fields of every optimiser."""

    name: str = text(..., "the optimiser")
    weight_decay: float = real(..., "not on biases and one-dimensional parameters")
    max_grad_norm: float = real(0.0, "clip gradients to this global norm; 0: never")
    trunk_lr_multiplier: float = real(1.0, "factor of the trunk's rate", 0, 1e3)
    frozen_epochs: float = real(..., "first epochs, with a frozen trunk", 0, 1e6)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SGDConfig(OptimiserConfig):
    """SGD with Nesterov momentum."""

    name: Literal["sgd"] = "sgd"
    momentum: float = real(..., "Nesterov momentum", 0, 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamWConfig(OptimiserConfig):
    """AdamW."""

    name: Literal["adamw"] = "adamw"


@dataclasses.dataclass(frozen=True, kw_only=True)
class UpdatesConfig:
    """From gradients to the next state."""

    grad_accum_steps: int = integer(
        ..., "sequential micro-batches of a batch", 1, 2**20
    )
    ema_decay: float = real(
        ..., "decay of an EMA of the weights, as 0.999; 0: none", 0, 0.999999
    )
    max_nonfinite_steps: int = integer(
        ..., "consecutive non-finite steps that are skipped, not fatal"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """Devices."""

    data: int = integer(..., "devices that split the images; -1: all others", -1)
    model: int = integer(..., "devices that split the class matrix", 1)
    shard_optimiser: bool = text(..., "split momentum and EMA over all devices")

    def __post_init__(self) -> None:
        if self.data == 0:
            raise UserError("data is 0; it must be at least 1, or -1: all others")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExtractionConfig:
    """Photos -> descriptors in evaluation, by default as the authors do (test.py)."""

    longest_side: int = integer(
        1024, "of a photo in pixels; larger ones are shrunk", 1, 2**14
    )
    scales: tuple[Annotated[float, Meta(ge=0.05, le=20)], ...] = documented(
        (1.0, 2**0.5, 2**-0.5),
        Meta(description="factors of the image size, in [0.05, 20]", min_length=1),
    )
    batch_size: int = integer(
        8, "views a batch; a multiple of a host's devices", 1, 2**20
    )
    canvases: int = integer(8, "most padded shapes, each of which is compiled", 1, 12)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What does not change the result."""

    data_dir: str = location(..., "folder or URL of prepared datasets")
    cache_gib: float = real(
        64.0, "GiB on the local disk for a dataset in a bucket", 1e-6, 2**20
    )
    compilation_cache: str = location(
        ..., 'folder or URL (gs://, s3://) of compiled programs; "": none'
    )
    log_every: int = integer(..., "steps between lines of metrics", 1)
    checkpoint_every: int = integer(..., "steps between checkpoints; also the last", 1)
    keep: int = integer(..., "newest checkpoints that are kept", 1)
    keep_best: Literal["", "loss", "top1", "top5"] = text(
        ..., 'validation metric by which the best checkpoint is kept too; "": none'
    )
    threads: int = integer(..., "threads that decode and augment", 1, 1024)
    max_skipped_fraction: float = real(
        ..., "fraction of an epoch's photos that may fail to decode", 0, 1
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetIdentity:
    """What a resumed run must find again; recorded by training."""

    labels: str = text(..., "digest of the classes' names")
    classes: int = integer(..., "classes", 1)
    photos: dict[str, int] = text(..., "number of photos by split")


# Groups whose class depends on one of their fields: that field, and classes by value.
VARIANTS: dict[str, tuple[str, dict[str, type[Any]]]] = {
    "data": ("name", DATASETS),
    "model": ("head", HEADS),
    "optimiser": ("name", {"adamw": AdamWConfig, "sgd": SGDConfig}),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """What a model is and how it extracts descriptors; all of a converted model."""

    seed: int = integer(0, "decides weights, order, augmentation and dropout", 0, 2**32)
    model: ModelConfig
    init: InitConfig = InitConfig()  # noqa: RUF009 (frozen)
    evaluation: ExtractionConfig = ExtractionConfig()  # noqa: RUF009 (frozen)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(InferenceConfig):
    """All of a training run."""

    batch_size: int = integer(..., "images of a batch, on all devices", 1, 2**20)
    epochs: int = integer(..., "passes over the training photos", 1, 2**32)
    data: DataConfig
    augmentation: AugmentationConfig
    shuffle: ShuffleConfig = ShuffleConfig()  # noqa: RUF009 (frozen)
    arcface: ArcFaceConfig
    schedule: ScheduleConfig
    optimiser: OptimiserConfig
    updates: UpdatesConfig
    mesh: MeshConfig
    run: RunConfig
    dataset: DatasetIdentity | None = None

    def __post_init__(self) -> None:
        schedule = self.schedule
        bounds = (0, *schedule.restarts, self.epochs)
        lengths = [end - start for start, end in itertools.pairwise(bounds)]
        if schedule.restarts and min(lengths) < 1:
            raise UserError(
                f"schedule.restarts is {schedule.restarts}; each must be more than the "
                f"one before it and less than epochs, {self.epochs}"
            )
        if schedule.warmup_epochs >= min(lengths):
            between = " from one restart to the next" if schedule.restarts else ""
            raise UserError(
                f"schedule.warmup_epochs is {schedule.warmup_epochs}; it must be less "
                f"than epochs{between}, {min(lengths)}"
            )
