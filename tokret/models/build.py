"""Models by name: one table of trunks, one of heads, and `build_model`."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from tokret.arguments import choose, within
from tokret.configuration import call
from tokret.errors import UserError
from tokret.models.heads import Head
from tokret.models.heads.delg import LocalBranch
from tokret.models.heads.gem import GeMHead
from tokret.models.heads.netvlad import NetVLADHead
from tokret.models.heads.rmac import RMACHead
from tokret.models.heads.solar import SolarHead
from tokret.models.heads.token.head import INITIALISERS, TokenHead
from tokret.models.heads.token.refinement import REFINEMENTS
from tokret.models.heads.token.tokenizer import TOKENIZERS
from tokret.models.retrieval_net import RetrievalNet
from tokret.models.trunks import Trunk
from tokret.models.trunks.efficientnet import EfficientNetLite
from tokret.models.trunks.resnet import BasicBlock, ResNet

TRUNKS: dict[str, Callable[..., Trunk]] = {
    "resnet50": functools.partial(ResNet, blocks=(3, 4, 6, 3)),
    "resnet101": functools.partial(ResNet, blocks=(3, 4, 23, 3)),
    "resnet50_soa4": functools.partial(ResNet, blocks=(3, 4, 6, 3), second_order=True),
    "resnet101_soa4": functools.partial(
        ResNet, blocks=(3, 4, 23, 3), second_order=True
    ),
    "efficientnet_lite0": EfficientNetLite,
    # Stride 16, for a CPU.
    "tiny": functools.partial(ResNet, blocks=(1, 1, 1), block=BasicBlock, width=32),
}
HEADS: dict[str, Callable[..., Head]] = {
    "token": TokenHead,
    "gem": GeMHead,
    "rmac": RMACHead,
    "solar": SolarHead,
    "netvlad": NetVLADHead,
    "delg": GeMHead,  # what makes it DELG is its local loss
}
# Names and ranges, both ends included, of the heads' fields.
NAMES: dict[str, dict[str, Any]] = {
    "tokenizer": TOKENIZERS,
    "initialiser": INITIALISERS,
    "refinement": REFINEMENTS,
}
RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("dim", "width", "tokens", "clusters", "num_heads"), (1, math.inf)),
    **dict.fromkeys(("attention_layers", "refinement_layers"), (0, 1000)),
    **dict.fromkeys(("dropout", "drop_path"), (0, 0.99)),
    "query_init_std": (0, 1000),
    "p": (1, 1000),
    "levels": (1, 10),
}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def build_model(
    *,
    trunk: str,
    head: str,
    dtype: str,
    local_loss: bool = False,
    remat: bool = False,
    frozen_stages: int = 0,
    **head_options: Any,
) -> RetrievalNet:
    """Builds a model from plain values, as a config holds them.

    Args:
      trunk: a name in `TRUNKS`.
      head: a name in `HEADS`.
      dtype: dtype of the computation, a name in `DTYPES`.
      local_loss: whether DELG's local branch is trained too; it needs a ResNet.
      remat: whether training recomputes the activations of the trunk's blocks, to save
        memory.
      frozen_stages: first stages of the trunk that are frozen in training.
      **head_options: the head's own fields; see the modules in `HEADS`.

    Raises:
      UserError: if a name is unknown, a field is not one of the head's, or a number is
        out of range.
    """
    make_trunk = choose(TRUNKS, trunk, "config.model.trunk")
    make_head = choose(HEADS, head, "config.model.head")
    compute = choose(DTYPES, dtype, "config.model.dtype")
    model = RetrievalNet(
        make_trunk(dtype=compute, remat=remat, frozen_stages=frozen_stages),
        call(make_head, "model", head_options, dtype=compute),
        LocalBranch(dtype=compute) if local_loss else None,
    )
    _check(model.head)
    return model


def _check(head: nn.Module) -> None:
    for field, table in NAMES.items():
        if hasattr(head, field):
            choose(table, getattr(head, field), f"config.model.{field}")
    for field, limits in RANGES.items():
        if hasattr(head, field):
            within(f"model.{field}", getattr(head, field), *limits)
    width = "width" if hasattr(head, "width") else "dim"
    if hasattr(head, "num_heads") and getattr(head, width) % head.num_heads:
        raise UserError(
            f"config.model.{width} {getattr(head, width)} is not divisible by "
            f"config.model.num_heads {head.num_heads}"
        )
