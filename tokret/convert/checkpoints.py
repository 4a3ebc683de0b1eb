"""Converted weights as the folder of a run, and a run's weights in a released layout.

DIR/config.json      the model, for eval.py and train.py
DIR/origin.json      what the weights lack of the file: names in order, dtypes, and
the counters of PyTorch's batch norms
DIR/checkpoints/0/   Orbax, float32
"""

import dataclasses
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import msgspec
import numpy as np

from tokret.config import stored
from tokret.config.parsing import parse_model
from tokret.config.tree import Config, InferenceConfig
from tokret.convert.recognition import CLASSIFIERS, Found
from tokret.convert.released import COUNTER, from_released, to_released
from tokret.convert.tensor_names import LAYOUTS
from tokret.errors import UserError
from tokret.io.atomic_files import write_whole
from tokret.io.drafts import make_draft
from tokret.io.json_files import read_json
from tokret.io.remote.fetching import drop, fetch
from tokret.io.remote.uploading import publish
from tokret.io.remote.urls import url_of
from tokret.training.checkpoint_metadata import read_config, read_metadata
from tokret.training.weights import find_checkpoint, load_weights, save_weights

MAX_ORIGIN = 2**24  # bytes of origin.json; a thousand tensors take 0.1 MB
FLOATS = ("float16", "bfloat16", "float32", "float64")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
Tensors = Mapping[str, np.ndarray]


def _origin(found: Found, tensors: Tensors, source: str) -> dict[str, Any]:
    """Records what the conversion back needs beside the weights."""
    records: dict[str, list[Any]] = {n: [t.dtype.name] for n, t in tensors.items()}
    for name in records:
        if name.endswith(COUNTER):
            records[name].append(int(tensors[name]))
    return {"source": source, "layout": found.layout, "tensors": records}


def write_checkpoint(output: Path, found: Found, tensors: Tensors, source: str) -> None:
    """Writes a folder that eval.py and train.py take, atomically, or uploads it.

    Args:
      output: the folder; it must not exist.
      found: layout and model.
      tensors: by their released names; already checked.
      source: name of their file.
    """
    variables = from_released(tensors, LAYOUTS[found.layout])
    float32 = jax.tree.map(
        lambda leaf: np.ascontiguousarray(leaf, np.float32), variables
    )
    params = {name: float32[name] for name in CLASSIFIERS if name in float32}
    params["model"] = float32["params"]
    drop(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    is_remote = url_of(output) is not None
    partial = output if is_remote else make_draft(output)
    partial.mkdir()
    try:
        model = parse_model({"dtype": "float32", **found.model})
        config = InferenceConfig(model=model)  # with the authors' evaluation
        stored.save(config, partial / "config.json")
        origin = json.dumps(_origin(found, tensors, source), indent=2)
        write_whole(partial / "origin.json", f"{origin}\n")
        publish(partial)
        # In object storage it counts from the end of this upload.
        save_weights(partial, params, float32["batch_stats"], config)
        if not is_remote:
            os.replace(partial, output)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def read_checkpoint(
    workdir: Path, step: str | None
) -> tuple[Found, dict[str, np.ndarray]]:
    """Reads a run's or a conversion's weights as a released state dict.

    Args:
      workdir: the run's folder.
      step: the checkpoint's step, or the word best; None takes the newest.

    Returns:
      Layout and model, and the tensors with the names, order and dtypes of the
      original file; of a model that tokret trained, those of the authors' code.

    Raises:
      UserError: if there is no checkpoint, or its model has no released layout.
    """
    checkpoint = find_checkpoint(workdir, step)
    config = read_config(checkpoint)
    model = dataclasses.asdict(config.model)
    del model["dtype"]
    origin = _read_origin(fetch(workdir / "origin.json"))
    found = Found(origin.layout if origin else config.model.head, model)
    _check_released(model, found.layout)
    params, batch_stats = load_weights(checkpoint)
    variables = {"params": params.pop("model"), "batch_stats": batch_stats, **params}
    dataset = config.dataset if isinstance(config, Config) else None
    if dataset is not None and "arcface" in params:
        # Rows beyond the classes only pad to the mesh.
        for name in set(CLASSIFIERS) & set(params):
            variables[name] = jax.tree.map(
                lambda leaf: leaf[: dataset.classes], params[name]
            )
    tensors = to_released(variables, LAYOUTS[found.layout])
    if origin is None:
        return found, _with_counters(tensors, read_metadata(checkpoint).step)
    recorded = {name for name in origin.tensors if not name.endswith(COUNTER)}
    if recorded != set(tensors):
        raise UserError(
            f"{workdir / 'origin.json'} does not list the checkpoint's tensors; "
            "convert the weights again"
        )
    return found, _as_recorded(tensors, origin.tensors)


def _check_released(model: Mapping[str, Any], layout: str) -> None:
    """Refuses models that the authors' code does not have."""
    for field in ("tokenizer", "refinement"):
        if model.get(field, "released") != "released":
            raise UserError(
                f"model.{field} is {model[field]!r}, which the authors' code does not "
                "have; it cannot be written in their layout"
            )
    if layout not in LAYOUTS:
        raise UserError(f"model.head {layout!r} has no released layout")
    if model.get("trunk") == "efficientnet_lite0" != layout:
        raise UserError(
            f"a {layout} head over efficientnet_lite0 has no released layout; only the "
            "trunk alone has one"
        )


class _Origin(msgspec.Struct):
    """What a conversion reads of origin.json: all but the source."""

    layout: str
    tensors: dict[str, list[str | int]]


def _read_origin(path: Path) -> _Origin | None:
    if not path.exists():
        return None
    remedy = "convert the weights again"
    origin: _Origin = read_json(path, _Origin, remedy, MAX_ORIGIN)
    records = origin.tensors.items()
    if origin.layout not in LAYOUTS or not all(_is_record(*item) for item in records):
        raise UserError(f"{path} is damaged; {remedy}")
    return origin


def _is_record(name: str, kept: list[str | int]) -> bool:
    """Whether `_origin` can have made an entry of origin.json."""
    match kept, name.endswith(COUNTER):
        case [dtype], False:
            return dtype in FLOATS
        case [str(dtype), int(value)], True if dtype in INTEGERS:
            return bool(np.iinfo(dtype).min <= value <= np.iinfo(dtype).max)
    return False


def _as_recorded(
    tensors: dict[str, np.ndarray], record: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Restores the order, dtypes and counters of the original file."""
    return {
        name: np.array(value[0], dtype) if value else tensors[name].astype(dtype)
        for name, (dtype, *value) in record.items()
    }


def _with_counters(tensors: dict[str, np.ndarray], step: int) -> dict[str, np.ndarray]:
    """Adds the number of steps of every batch norm, which PyTorch requires."""
    found = {}
    for name, tensor in tensors.items():
        found[name] = tensor
        if name.endswith("running_var"):
            found[name.replace("running_var", COUNTER)] = np.array(step, np.int64)
    return found
