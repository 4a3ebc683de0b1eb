"""`config.model`: the fields of each head."""

import dataclasses
from typing import Annotated, Any, Literal

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
Dim = Annotated[int, integer("dimensions of a descriptor", 1)]
Power = Annotated[float, real("power of the mean over positions; 1: average", 1, 1e3)]
NumHeads = Annotated[int, integer("heads of every attention", 1)]
Dropout = Annotated[float, real("dropout rate in attentions and MLPs", 0, 0.99)]
DropPath = Annotated[
    float, real("rate at which an example skips a residual branch", 0, 0.99)
]


def check_divides(num_heads: int, name: str, width: int) -> None:
    """Checks that attention heads can split the channels.

    Raises:
      UserError: if they cannot.
    """
    if width % num_heads:
        raise UserError(f"num_heads is {num_heads}; it must divide {name}, {width}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Photos -> descriptors: the fields of every model."""

    trunk: Annotated[Trunk, text("feature extractor")]
    head: Annotated[str, text("aggregation of the features")]
    dtype: Annotated[Literal["float32", "bfloat16"], text("dtype of the computation")]
    dim: Dim = 1024
    remat: Annotated[
        bool, text("recompute activations: less memory, a third more work")
    ] = False
    frozen_stages: Annotated[
        int, integer("first stages of the trunk that are frozen")
    ] = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenConfig(ModelConfig):
    """Token."""

    head: Literal["token"] = "token"
    width: Annotated[int, integer("channels of local features and tokens", 1)] = 1024
    tokens: Annotated[int, integer("number of tokens", 1)] = 4
    tokenizer: Annotated[Form, text("its equations: the code's or the paper's")] = (
        "released"
    )
    query_init_std: Annotated[
        float, real("standard deviation of the tokenizer's initial queries", 0, 1e3)
    ] = 1.0
    initialiser: Annotated[
        Literal["released", "lossless"],
        text("of linear layers; lossless, with small queries, for few classes"),
    ] = "released"
    num_heads: NumHeads = 8
    attention_layers: Annotated[
        int, integer("layers of self-attention among local features", 0, 1000)
    ] = 1
    refinement: Annotated[Form, text("its equations: the code's or the paper's")] = (
        "released"
    )
    refinement_layers: Annotated[
        int, integer("layers of refinement of the tokens", 0, 1000)
    ] = 2
    dropout: Dropout = 0.1
    drop_path: DropPath = 0.1

    def __post_init__(self) -> None:
        check_divides(self.num_heads, "width", self.width)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeMConfig(ModelConfig):
    """Generalised-mean pooling."""

    head: Literal["gem"] = "gem"
    p: Power = 3.0
    whiten: Annotated[bool, text("whether a linear layer follows")] = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class RMACConfig(ModelConfig):
    """R-MAC: sums of regions' maxima."""

    head: Literal["rmac"] = "rmac"
    levels: Annotated[int, integer("sizes of regions", 1, 10)] = 3
    normalise_in_evaluation: Annotated[
        bool, text("normalise before whitening in evaluation too; released: False")
    ] = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class SolarConfig(ModelConfig):
    """SOLAR's head: GeM; its attention is in the trunks *_soa4."""

    head: Literal["solar"] = "solar"
    p: Power = 3.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetVLADConfig(ModelConfig):
    """NetVLAD after self-attention."""

    head: Literal["netvlad"] = "netvlad"
    clusters: Annotated[int, integer("number of centroids", 1)] = 4
    num_heads: NumHeads = 8
    dropout: Dropout = 0.1
    drop_path: DropPath = 0.1

    def __post_init__(self) -> None:
        check_divides(self.num_heads, "dim", self.dim)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DELGConfig(ModelConfig):
    """DELG: GeM trained beside local features."""

    head: Literal["delg"] = "delg"
    p: Power = 3.0
    local_loss: Annotated[bool, text("train the local features' classifier")] = True


# By `config.model.head`.
HEADS: dict[str, type[Any]] = {
    "token": TokenConfig,
    "gem": GeMConfig,
    "rmac": RMACConfig,
    "solar": SolarConfig,
    "netvlad": NetVLADConfig,
    "delg": DELGConfig,
}
