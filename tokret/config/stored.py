"""Configs as JSON files: config.json of a run or a conversion."""

import math
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from tokret.config.parsing import parse_saved, to_tree
from tokret.config.tree import Config, InferenceConfig
from tokret.errors import UserError
from tokret.io.atomic_files import write_whole
from tokret.io.json_files import read_json

FIELD = "--config."  # begins an option that changes a field
MAY_CHANGE = ("run", "mesh")  # groups that do not change what is learned
MAX_BYTES = 2**22  # of a file; configs have some kilobytes


def save(config: InferenceConfig, path: Path) -> None:
    """Writes a config as indented JSON, atomically, or raises a UserError."""
    text = msgspec.json.format(msgspec.json.encode(config), indent=2).decode()
    write_whole(path, text + "\n", path.with_suffix(".partial"))


def load(path: Path) -> InferenceConfig:
    """Reads a config that `save` wrote.

    Raises:
      UserError: if the file is missing or is not such a config.
    """
    try:
        remedy = "remove it: each checkpoint of the run holds the same config"
        tree = read_json(path, dict[str, Any], remedy, MAX_BYTES)
    except UserError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            words = f"{path} does not exist; is {path.parent} the folder of a run?"
            raise UserError(words) from error
        raise
    try:
        return parse_saved(tree)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def differences(ours: Any, theirs: Any, path: str = "config") -> list[str]:
    """Lists the fields in which two trees differ, as `field: theirs -> ours`."""
    if not isinstance(ours, dict) or not isinstance(theirs, dict):
        return [] if ours == theirs else [f"{path}: {theirs!r} -> {ours!r}"]
    return [
        line
        for name in sorted(set(ours) | set(theirs))
        for line in differences(ours.get(name), theirs.get(name), f"{path}.{name}")
    ]


def record(config: Config, path: Path, checkpointed: InferenceConfig | None) -> None:
    """Saves a run's config; a resumed run must have the same, except `MAY_CHANGE`.

    It may have more epochs, too, if the schedule restarts after the last of before.

    Args:
      config: of this start.
      path: config.json in the run's folder.
      checkpointed: the config in the run's checkpoint, for a run that lost the file.

    Raises:
      UserError: if the run was started with another config; it names the fields.
    """
    started = load(path) if path.exists() else checkpointed
    if started is not None and not _extends(config, started):
        trees = ours, theirs = to_tree(config), to_tree(started)
        for tree in trees:
            for group in MAY_CHANGE:
                tree.pop(group, None)
        found = differences(ours, theirs)
        if found:
            raise UserError(
                f"workdir: {path.parent} belongs to a run with another config "
                f"({'; '.join(found)}); choose another folder, or the same fields"
                + _as_options(ours, theirs)
                + _how_to_extend(config, started)
            )
    save(config, path)


def _extends(config: Config, started: InferenceConfig) -> bool:
    """Whether a config differs in epochs that follow a restart of the schedule."""
    if not isinstance(started, Config):
        return False
    before = (*started.schedule.restarts, started.epochs)
    return config.schedule.restarts[: len(before)] == before and _differ_in_length(
        config, started
    )


def _differ_in_length(*configs: Config) -> bool:
    """Whether configs differ at most in epochs, restarts and `MAY_CHANGE`."""
    first, second = map(to_tree, configs)
    for tree in (first, second):
        for name in ("epochs", *MAY_CHANGE):
            del tree[name]
        del tree["schedule"]["restarts"]
    return first == second


def _how_to_extend(config: Config, started: InferenceConfig) -> str:
    if (
        not isinstance(started, Config)
        or config.epochs <= started.epochs
        or not _differ_in_length(config, started)
    ):
        return ""
    return (
        f"; to train it further add {lengthening(started, config.epochs)} (warm-up and "
        "decay start again from its last weights)"
    )


def lengthening(config: Config, wanted: int | None = None) -> str:
    """Returns the options that train a finished run further.

    `wanted` is a number of epochs, taken if it leaves time for the warm-up.
    """
    least = config.epochs + math.floor(config.schedule.warmup_epochs) + 1
    restarts = ",".join(map(str, (*config.schedule.restarts, config.epochs)))
    fits = wanted is not None and wanted >= least
    epochs = str(wanted) if fits else f"{least}, or more epochs"
    return f"{FIELD}schedule.restarts={restarts} {FIELD}epochs={epochs}"


def _as_options(ours: Any, theirs: Any) -> str:
    """Returns the fields of a run as options, "" if some are not to be chosen."""
    options = list(_options(ours, theirs, FIELD.removesuffix(".")))
    return f": {' '.join(options)}" if options and all(options) else ""


def _options(ours: Any, theirs: Any, path: str) -> Iterator[str]:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name in sorted({*ours, *theirs}):
            yield from _options(ours.get(name), theirs.get(name), f"{path}.{name}")
    elif ours != theirs:
        is_free = not (theirs is None or isinstance(theirs, dict))
        is_free = is_free and not path.startswith(f"{FIELD}dataset.")
        values = theirs if isinstance(theirs, list | tuple) else [theirs]
        text = ",".join(map(str, values))
        yield f"{path}={shlex.quote(text) if text else ''}" if is_free else ""
