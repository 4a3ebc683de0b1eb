"""Layout and model of a weight file, and whether all its tensors fit.

Names and shapes decide nearly everything. Neither shows the number of attention heads
(the released models have 8), and GeM and R-MAC look alike: these two are arguments,
unless tokret wrote the file and its header has them.
"""

import dataclasses
import json
import re
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import msgspec
import numpy as np

from tokret.config.parsing import parse_model
from tokret.convert.released import COUNTER, to_released
from tokret.convert.tensor_names import LAYOUTS
from tokret.errors import UserError
from tokret.models.build import build_model
from tokret.names import first_names

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

HEADER = "tokret"  # the entry of a safetensors header with layout and model
# A trunk alone is evaluated by the mean over positions: that has no parameters.
MEAN_OVER_POSITIONS: dict[str, Any] = {"head": "gem", "p": 1.0, "whiten": False}
RELEASED_HEADS = 8  # of every attention
LOCAL_DIM = 128  # of DELG's local features
LARGEST_SIDE = 2**16  # of a plausible model
CLASSIFIERS = ("arcface", "arcface_local", "imagenet")
# A tensor that every file of a layout has, or of several layouts.
STEMS = ("layer1.0.conv1.weight", "_conv_stem.weight", "backbone.block1.0.weight")
MAX_LISTED = 8  # problems of one kind in an error


class UnknownModelError(UserError):
    """The names are of no model that tokret has."""


class Found(msgspec.Struct, frozen=True):
    """Layout and model of a file.

    Attributes:
      layout: a name in `LAYOUTS`.
      model: fields of `config.model`.
    """

    layout: str
    model: dict[str, str | int | float | bool]


def from_header(metadata: Mapping[str, str]) -> Found | None:
    """Reads tokret's entry in a safetensors header; None if there is none.

    Raises:
      UserError: if the entry is damaged.
    """
    if HEADER not in metadata:
        return None
    try:
        found = msgspec.json.decode(metadata[HEADER], type=Found)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise UserError("its tokret header is damaged; write it again") from error
    if found.layout not in LAYOUTS:
        raise UserError(f"its tokret header has the layout {found.layout!r:.40}")
    return found


def header(found: Found) -> dict[str, str]:
    """Makes the safetensors header that `from_header` reads."""
    return {HEADER: json.dumps(msgspec.structs.asdict(found))}


def foreign_prefix(names: Collection[str], place: str = "") -> str:
    """Returns what another program put before the names of a known trunk.

    Args:
      names: of all tensors.
      place: of their dict in the file, for errors.

    Returns:
      A prefix of all names, such as "backbone."; "" if the trunk's have none.

    Raises:
      UserError: other tensors are beside the trunk, or another trunk.
    """
    found = {
        name.removesuffix(stem)
        for name in names
        for stem in STEMS
        if f".{name}".endswith(f".{stem}")
    }
    if not found or "" in found:
        return ""
    prefix = min(found)
    others = [name for name in names if not name.startswith(prefix)]
    if others:
        state = f"{place}.{prefix}".strip(".")
        raise UserError(
            f"state: a trunk is below {prefix} and {len(others)} other tensors beside "
            f"it, {first_names(others)}; state={state} takes the trunk alone"
        )
    return prefix


def recognise(shapes: Shapes, head: str | None, num_heads: int | None) -> Found:
    """Derives layout and model from names and shapes; other fields are as released.

    Args:
      shapes: of every tensor, by name.
      head: of a whitened pooling, gem or rmac; None if not known.
      num_heads: attention heads; None if not known.

    Raises:
      UserError: if no layout of tokret's fits, or `head` is needed.
    """
    layout = _layout(shapes, head)
    trunk = layout if layout == "efficientnet_lite0" else _trunk(shapes)
    if layout in ("efficientnet_lite0", "torchvision"):
        return Found(layout, {"trunk": trunk, **MEAN_OVER_POSITIONS})
    fields = _head_fields(shapes, layout)
    if layout in ("token", "netvlad"):
        fields["num_heads"] = RELEASED_HEADS if num_heads is None else num_heads
    return Found(layout, {"trunk": trunk, "head": layout, **fields})


def _layout(shapes: Shapes, head: str | None) -> str:
    starts = {
        "_conv_stem.": "efficientnet_lite0",
        "layer1.0.": "torchvision",
        "tr.": "token",
        "vlad.": "netvlad",
        "pooling.": "solar",
        "reduction.": "delg",
        "classifier_block5.": "delg",
    }
    for start, layout in starts.items():
        if any(name.startswith(start) for name in shapes):
            if head not in (None, layout):
                raise UserError(f"head is {head}, but its tensors are {layout}'s")
            return layout
    if not any(re.match(r"whiten\.|backbone\.block\d\.", name) for name in shapes):
        raise UnknownModelError(
            f"no tensors of a known model ({first_names(list(shapes))}); it takes "
            f"{', '.join(LAYOUTS)}"
        )
    if head in ("gem", "rmac"):
        return head
    raise UserError("GeM and R-MAC checkpoints look alike; set head to gem or to rmac")


def _count(shapes: Shapes, pattern: str) -> int:
    """Returns one more than the largest number of a pattern in any name."""
    matches = (re.match(pattern, name) for name in shapes)
    return 1 + max((int(match[1]) for match in matches if match), default=-1)


def _trunk(shapes: Shapes) -> str:
    """Returns the trunk, by the depth of its third stage."""
    depth = _count(shapes, r"(?:backbone\.block4|layer3)\.(\d{1,2})\.")
    trunk = "resnet101" if depth > 10 else "resnet50" if depth > 1 else "tiny"
    second_order = any(name.startswith("backbone.soa4.") for name in shapes)
    return f"{trunk}_soa4" if second_order else trunk


def _side(shapes: Shapes, name: str, axis: int, otherwise: int) -> int:
    """Returns a side of a tensor; if it is missing, the released side."""
    side = shapes.get(name, ())[axis : axis + 1]
    return side[0] if side and 1 <= side[0] <= LARGEST_SIDE else otherwise


def _head_fields(shapes: Shapes, layout: str) -> dict[str, Any]:
    """Derives a head's fields from the shapes."""
    if layout == "token":
        return {
            "dim": _side(shapes, "tr.proj.0.weight", 0, 1024),
            "width": _side(shapes, "tr.query", 2, 1024),
            "tokens": _side(shapes, "tr.query", 1, 4),
            "attention_layers": _count(shapes, r"tr\.encoder\.(\d{1,2})\."),
            "refinement_layers": _count(shapes, r"tr\.decoder\.(\d{1,2})\."),
        }
    if layout == "netvlad":
        return {
            "dim": _side(shapes, "vlad.proj.0.weight", 0, 1024),
            "clusters": _side(shapes, "vlad.centroids", 2, 4),
        }
    dim = {"dim": _side(shapes, "whiten.weight", 0, 2048)}
    if layout == "rmac":  # as the authors evaluate it; see tokret.models.heads.rmac
        return dim | {"normalise_in_evaluation": False}
    if layout == "delg":
        return dim | {"local_loss": "reduction.weight" in shapes}
    return dim


def wanted_shapes(found: Found, shapes: Shapes) -> dict[str, Shape]:
    """Returns the released names and shapes of a model, its classifiers included.

    Args:
      found: layout and model.
      shapes: of the file: its classifiers may have any number of classes.

    Raises:
      UserError: if the model's fields are wrong, or it has no released names.
    """
    fields = parse_model({"dtype": "float32", **found.model})
    model = build_model(**dataclasses.asdict(fields))
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    rows = LAYOUTS[found.layout]
    abstract = jax.eval_shape(
        lambda x: to_released(model.init(jax.random.key(0), x, train=False), rows),
        images,
    )
    wanted = {name: leaf.shape for name, leaf in abstract.items()}
    imagenet = 1280 if found.layout == "efficientnet_lite0" else 2048
    widths = (found.model.get("dim"), LOCAL_DIM, imagenet)
    dims = dict(zip(CLASSIFIERS, widths, strict=True))
    for row in rows:
        weight = row.released.replace(".bias", ".weight")
        if row.collection in CLASSIFIERS and weight in shapes:
            classes = shapes[weight][:1]
            matrix = (*classes, dims[row.collection])
            wanted[row.released] = matrix if row.released == weight else classes
    return wanted


def problems(shapes: Shapes, wanted: Shapes) -> list[str]:
    """Lists tensors that are missing, unknown or misshapen: the first of each kind."""
    # Files older than the counters of batch norms lack them.
    known: dict[str, Shape] = {n.replace("running_var", COUNTER): () for n in wanted}
    known |= wanted
    differing = [n for n in shapes if n in known and shapes[n] != known[n]]
    return [
        *_first([f"{n} is missing" for n in wanted if n not in shapes], "missing"),
        *_first(
            [f"{name} is not the model's" for name in shapes if name not in known],
            "not the model's",
        ),
        *_first(
            [
                f"{name} has shape {list(shapes[name])}, not {list(known[name])}"
                for name in differing
            ],
            "of another shape",
        ),
    ]


def _first(found: list[str], what: str) -> list[str]:
    more = len(found) - MAX_LISTED
    return found[:MAX_LISTED] + [f"{more} more are {what}"] * (more > 0)


def value_problems(tensors: Mapping[str, np.ndarray]) -> list[str]:
    """Lists tensors whose values no model could have: the first of them."""
    found = []
    for name, tensor in tensors.items():
        if name.endswith(COUNTER):
            if tensor.dtype.kind not in "iu":
                found.append(f"{name} is {tensor.dtype.name}, not an integer")
        elif not jnp.issubdtype(tensor.dtype, jnp.floating):
            found.append(f"{name} is {tensor.dtype.name}, not floating point")
        elif not (np.abs(tensor) <= np.finfo(np.float32).max).all():
            found.append(f"{name} has values that are not finite in float32")
        elif name.endswith("running_var") and (tensor < 0).any():
            found.append(f"{name} has a variance below 0")
    return _first(found, "wrong")
