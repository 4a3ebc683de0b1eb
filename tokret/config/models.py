"""`config.model`: the fields of each head."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from tokret.config.annotations import integer, real, text
from tokret.errors import UserError

Trunk = Literal[
    "resnet50",
    "resnet101",
    "resnet50_soa4",
    "resnet101_soa4",
    "efficientnet_lite0",
    "tiny",
]
Form = Literal["released", "paper"]


def check_divides(num_heads: int, name: str, width: int) -> None:
    """Raises a UserError if attention heads cannot split the channels."""
    if width % num_heads:
        raise UserError(f"num_heads is {num_heads}; it must divide {name}, {width}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Photos -> descriptors: the fields of every model."""

    trunk: Trunk = text(..., "feature extractor")
    head: str = text(..., "aggregation of the features")
    dtype: Literal["float32", "bfloat16"] = text(..., "dtype of the computation")
    dim: int = integer(1024, "dimensions of a descriptor", 1, 2**16)
    remat: bool = text(False, "recompute activations: less memory, a third more work")
    frozen_stages: int = integer(0, "first stages of the trunk that are frozen")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenConfig(ModelConfig):
    """Token."""

    head: Literal["token"] = "token"
    width: int = integer(1024, "channels of local features and tokens", 1, 2**14)
    tokens: int = integer(4, "number of tokens", 1, 1024)
    tokenizer: Form = text("released", "its equations: the code's or the paper's")
    query_init_std: float = real(
        1.0, "standard deviation of the initial queries", 0, 1e3
    )
    initialiser: Literal["released", "lossless"] = text(
        "released", "of linear layers; lossless, with small queries, for few classes"
    )
    num_heads: int = integer(8, "heads of every attention", 1, 1024)
    attention_layers: int = integer(
        1, "layers of self-attention among local features", 0, 100
    )
    refinement: Form = text("released", "its equations: the code's or the paper's")
    refinement_layers: int = integer(2, "layers that refine the tokens", 0, 100)
    dropout: float = real(0.1, "dropout rate in attentions and MLPs", 0, 0.99)
    drop_path: float = real(0.1, "rate at which an example skips a branch", 0, 0.99)

    def __post_init__(self) -> None:
        check_divides(self.num_heads, "width", self.width)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeMConfig(ModelConfig):
    """Generalised-mean pooling."""

    head: Literal["gem"] = "gem"
    p: float = real(3.0, "power of the mean over positions; 1: average", 1, 1e3)
    whiten: bool = text(True, "whether a linear layer follows")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RMACConfig(ModelConfig):
    """R-MAC: sums of regions' maxima."""

    head: Literal["rmac"] = "rmac"
    levels: int = integer(3, "sizes of regions", 1, 10)
    normalise_in_evaluation: bool = text(
        True, "normalise before whitening in evaluation too; released: False"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SolarConfig(ModelConfig):
    """SOLAR's head: GeM; its attention is in the trunks *_soa4."""

    head: Literal["solar"] = "solar"
    p: float = real(3.0, "power of the mean over positions; 1: average", 1, 1e3)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetVLADConfig(ModelConfig):
    """NetVLAD after self-attention."""

    head: Literal["netvlad"] = "netvlad"
    clusters: int = integer(4, "number of centroids", 1, 4096)
    num_heads: int = integer(8, "heads of every attention", 1, 1024)
    dropout: float = real(0.1, "dropout rate in attentions and MLPs", 0, 0.99)
    drop_path: float = real(0.1, "rate at which an example skips a branch", 0, 0.99)

    def __post_init__(self) -> None:
        check_divides(self.num_heads, "dim", self.dim)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DELGConfig(ModelConfig):
    """DELG: GeM trained beside local features."""

    head: Literal["delg"] = "delg"
    p: float = real(3.0, "power of the mean over positions; 1: average", 1, 1e3)
    local_loss: bool = text(True, "train the local features' classifier")


KINDS = (TokenConfig, GeMConfig, RMACConfig, SolarConfig, NetVLADConfig, DELGConfig)
TITLES = {  # of trunks and heads, for people
    "resnet50": "ResNet-50",
    "resnet101": "ResNet-101",
    "resnet50_soa4": "ResNet-50 with second-order attention",
    "resnet101_soa4": "ResNet-101 with second-order attention",
    "efficientnet_lite0": "EfficientNet-Lite0",
    "tiny": "a tiny trunk",
    "token": "Token",
    "gem": "GeM",
    "rmac": "R-MAC",
    "solar": "SOLAR",
    "netvlad": "NetVLAD",
    "delg": "DELG",
}
# By `config.model.head`.
HEADS: dict[str, type[Any]] = {kind.head: kind for kind in KINDS}


def model_title(fields: Mapping[str, Any]) -> str:
    """A model's fields in words: EfficientNet-Lite0 with GeM, 1,024 dimensions."""
    trunk, head = (TITLES.get(fields[key], fields[key]) for key in ("trunk", "head"))
    join = "and" if " with " in trunk else "with"
    return f"{trunk} {join} {head}, {fields['dim']:,} dimensions"
