"""Models by name: one table of trunks, one of heads, and `build_model`."""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from tokret.arguments import choose
from tokret.models.heads import Head
from tokret.models.heads.delg import LocalBranch
from tokret.models.heads.gem import GeMHead, SolarHead
from tokret.models.heads.netvlad import NetVLADHead
from tokret.models.heads.rmac import RMACHead
from tokret.models.heads.token.head import TokenHead
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
    """Builds a model from plain values, the fields of `tokret.config.models`.

    DELG's `local_loss` needs a ResNet.

    Raises:
      UserError: if a name is unknown, or `frozen_stages` more than there are.
    """
    make_trunk = choose(TRUNKS, trunk, "trunk")
    make_head = choose(HEADS, head, "head")
    compute = choose(DTYPES, dtype, "dtype")
    return RetrievalNet(
        make_trunk(dtype=compute, remat=remat, frozen_stages=frozen_stages),
        make_head(dtype=compute, **head_options),
        LocalBranch(dtype=compute) if local_loss else None,
    )
