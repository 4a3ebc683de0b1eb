"""Models by name: one table of trunks, one of heads."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from tokret.errors import UserError
from tokret.models.resnet import ResNet
from tokret.models.token import Token, TokenHead

TRUNKS: dict[str, Callable[..., nn.Module]] = {
    "resnet50": functools.partial(ResNet, blocks=(3, 4, 6, 3)),
    "resnet101": functools.partial(ResNet, blocks=(3, 4, 23, 3)),
    "tiny": functools.partial(ResNet, blocks=(1, 1, 1), width=32),
}
HEADS: dict[str, Callable[..., nn.Module]] = {"token": TokenHead}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def choose(table: Mapping[str, Any], name: str, field: str) -> Any:
    """Looks a name up in a table of choices.

    Raises:
      UserError: if there is no such name; it lists those there are.
    """
    if name not in table:
        names = ", ".join(sorted(table))
        raise UserError(f"{field} is {name!r}; it must be one of: {names}")
    return table[name]


def build_model(*, trunk: str, head: str, dtype: str, **head_options: Any) -> Token:
    """Builds a model from plain values, as a config holds them.

    Args:
      trunk: a name in `TRUNKS`.
      head: a name in `HEADS`.
      dtype: dtype of the computation, a name in `DTYPES`.
      **head_options: the head's own fields; see `TokenHead`.

    Raises:
      UserError: if a name is unknown, or the heads do not divide the width.
    """
    make_trunk = choose(TRUNKS, trunk, "model.trunk")
    make_head = choose(HEADS, head, "model.head")
    compute = choose(DTYPES, dtype, "model.dtype")
    width, heads = head_options.get("width", 1024), head_options.get("heads", 8)
    if width < 1 or heads < 1 or width % heads:
        raise UserError(
            f"model.width is {width} and model.heads {heads}: both must be positive "
            "and the heads must divide the width"
        )
    return Token(make_trunk(dtype=compute), make_head(dtype=compute, **head_options))
