"""The released PyTorch state dict <-> the variables of `tokret.models`.

One table of patterns says which tensor becomes which variable. Every name must match a
pattern, and what comes out must be the model's variables to the last name and shape:
nothing is skipped in silence.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from tokret.errors import UserError

# Released name -> path of the module or parameter, under "trunk", "head" or "arcface".
PATTERNS: tuple[tuple[str, str], ...] = (
    (r"backbone\.block1\.0", r"trunk/conv1"),
    (r"backbone\.block1\.1", r"trunk/bn1"),
    (r"backbone\.block(\d)\.(\d+)\.(conv\d|bn\d)", r"trunk/layer{stage}_block\2/\3"),
    (
        r"backbone\.block(\d)\.(\d+)\.downsample\.0",
        r"trunk/layer{stage}_block\2/downsample_conv",
    ),
    (
        r"backbone\.block(\d)\.(\d+)\.downsample\.1",
        r"trunk/layer{stage}_block\2/downsample_bn",
    ),
    (r"tr\.token_norm\.0", r"head/tokenizer/linear"),
    (r"tr\.token_norm\.1", r"head/tokenizer/norm"),
    (r"tr\.encoder\.(\d+)\.attn\.(q|k|v|proj)", r"head/encoder\1/attn/\2"),
    (r"tr\.encoder\.(\d+)\.(bn|mlp)", r"head/encoder\1/\2"),
    (
        r"tr\.decoder\.(\d+)\.(self_attn|cross_attn)\.(q|k|v|proj)",
        r"head/decoder\1/\2/\3",
    ),
    (r"tr\.decoder\.(\d+)\.bn(\d)", r"head/decoder\1/norm\2"),
    (r"tr\.decoder\.(\d+)\.mlp\.(fc\d)", r"head/decoder\1/\2"),
    (r"tr\.(conv|proj)\.0", r"head/\1"),
    (r"tr\.(conv|proj)\.1", r"head/\1_bn"),
)
# Parameters that are not one of a layer's weight, bias and statistics.
SINGLE = {
    "tr.query": ("params", "head/tokenizer/query"),
    "classifier.weight": ("arcface", "weight"),
}
LEAVES = {
    "bias": ("params", "bias"),
    "running_mean": ("batch_stats", "mean"),
    "running_var": ("batch_stats", "var"),
}


def module_path(name: str) -> str | None:
    """Returns the path of a released module's counterpart, None if there is none."""
    for pattern, template in PATTERNS:
        match = re.fullmatch(pattern, name)
        if match:
            # The released trunk counts the stem as block1.
            stage = int(match[1]) - 1 if "{stage}" in template else 0
            return match.expand(template.replace("{stage}", str(stage)))
    return None


def variable_path(name: str, ndim: int) -> tuple[str, str] | None:
    """Returns (collection, path) of a released tensor's counterpart.

    Args:
      name: the tensor's name in the state dict.
      ndim: its number of axes; a weight with one axis scales a normalisation.
    """
    if name in SINGLE:
        return SINGLE[name]
    module, _, leaf = name.rpartition(".")
    path = module_path(module)
    if path is None:
        return None
    if leaf == "weight":
        return "params", f"{path}/{'scale' if ndim == 1 else 'kernel'}"
    if leaf not in LEAVES:
        return None
    collection, flax_leaf = LEAVES[leaf]
    return collection, f"{path}/{flax_leaf}"


def transposed(name: str, tensor: np.ndarray) -> np.ndarray:
    """Brings a released tensor into Flax's layout of axes.

    Convolutions are [out, in, h, w] there and [h, w, in, out] here, linears [out, in]
    and [in, out]; the query loses its leading axis of 1; the class matrix stays.
    """
    if name == "tr.query":
        return tensor[0]
    if name == "classifier.weight" or tensor.ndim == 1:
        return tensor
    if tensor.ndim == 4:
        return tensor.transpose(2, 3, 1, 0)
    return tensor.T


def from_released(
    state_dict: Mapping[str, np.ndarray],
    transform: Callable[[str, np.ndarray], np.ndarray] = transposed,
) -> dict[str, Any]:
    """Turns a released state dict into variables.

    Args:
      state_dict: tensors by their released names; `num_batches_tracked` carry nothing
        and are left out.
      transform: brings a named tensor into Flax's layout.

    Returns:
      Nested dictionaries by collection: params and batch_stats of the model, and
      arcface, the parameters of the classifier, where they are there.

    Raises:
      UserError: if names have no counterpart; all of them are listed.
    """
    flat: dict[str, np.ndarray] = {}
    unknown = []
    for name, tensor in state_dict.items():
        if name.endswith("num_batches_tracked"):
            continue
        target = variable_path(name, tensor.ndim)
        if target is None:
            unknown.append(name)
        else:
            flat["/".join(target)] = transform(name, tensor)
    if unknown:
        raise UserError(
            f"{len(unknown)} tensors have no place in Token: {', '.join(unknown)}"
        )
    return traverse_util.unflatten_dict(flat, sep="/")
