"""The dict of weights in a checkpoint, which may have several and much beside them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from tokret.io.torch_pickle import FaultError, Tensor, UnreadTensor
from tokret.names import first_names, printable

# Where training programs store weights. Of those in one file the first is the default:
# the trained weights, and their EMA (the last four) only where it is alone.
WRAPPERS = (
    *("state_dict", "model_state_dict", "model", "net", "module"),
    *("state_dict_ema", "ema_state_dict", "model_ema", "ema"),
)
DEPTH = 3  # dicts within dicts; those of an optimiser are further down
COUNT = "n_averaged"  # beside "module." in the state dict of torch's AveragedModel


class StateError(FaultError):
    """The file has no such state dict, or several: one has to be chosen."""


class Chosen(NamedTuple):
    """A state dict, chosen among those of a file.

    Attributes:
      tensors: by their names.
      name: where in the file it is, such as "model.state_dict"; "" for the whole file.
      alternatives: the other dicts of tensors.
      others: names of what else is in the file, or among the tensors.
    """

    tensors: dict[Any, Any]
    name: str
    alternatives: tuple[str, ...]
    others: tuple[str, ...]


def choose_state(top: object, name: str | None = None) -> Chosen:
    """Chooses a state dict of a file's pickle.

    Args:
      top: the pickle's content.
      name: a dict of tensors in it, or one and the prefix of some names in it. If none
        has this name, or for None, the default: the first of `WRAPPERS`, the whole
        file, or the only one.

    Raises:
      FaultError: there is no state dict, or it holds a tensor that cannot be read.
      StateError: there are several and none is the default.
    """
    if not isinstance(top, dict):
        raise FaultError(
            f"holds {kind_of(top)}; save a model's state_dict(), a dict of tensors"
        )
    found = _dicts_of_tensors(top)
    if not found:
        raise FaultError(
            f"holds no tensors, only {_listed(top) or 'an empty dict'}; a state dict "
            f"is at the top or under one of {', '.join(WRAPPERS)}"
        )
    named = [path for path in found if path and f"{name}.".startswith(f"{path}.")]
    chosen = max(named, key=len) if named else _default(found)
    entries = found[chosen]
    unread = {n: v for n, v in entries.items() if isinstance(v, UnreadTensor)}
    if unread:
        raise FaultError(
            f"its state dict holds tensors that NumPy has no array for: "
            f"{_listed(unread)}; save them as plain ones"
        )
    tensors = {n: value for n, value in entries.items() if isinstance(value, Tensor)}
    alternatives = tuple(path for path in found if path != chosen)
    others = [n for n in entries if n not in tensors]
    if chosen:
        roots = {path.partition(".")[0] for path in found}
        others = [n for n in top if n not in roots] + others
    names = tuple(printable(str(other), 80) for other in others)
    return without_count(Chosen(tensors, chosen, alternatives, names))


def without_count(chosen: Chosen) -> Chosen:
    """Drops the number of updates from the state dict of an AveragedModel."""
    rest = {name: t for name, t in chosen.tensors.items() if name != COUNT}
    if len(rest) == len(chosen.tensors) or not all(
        isinstance(name, str) and name.startswith("module.") for name in rest
    ):
        return chosen
    return chosen._replace(tensors=rest, others=(*chosen.others, COUNT))


def _default(found: Mapping[str, object]) -> str:
    known = [name for name in (*WRAPPERS, "") if name in found]
    if not known and len(found) > 1:
        raise StateError(
            f"has {len(found)} dicts of tensors, {first_names(list(found))}; name one"
        )
    return known[0] if known else next(iter(found))


def _dicts_of_tensors(top: dict[Any, Any]) -> dict[str, dict[Any, Any]]:
    """Lists by their places the dicts that hold a tensor directly."""
    found: dict[str, dict[Any, Any]] = {}
    seen = {id(top)}  # a pickle may have one dict in many places, or in itself
    level = {"": top}
    for _ in range(DEPTH):
        inner = {}
        for place, entries in level.items():
            for name, value in entries.items():
                if isinstance(value, Tensor | UnreadTensor):
                    found[place] = entries
                elif isinstance(value, dict) and isinstance(name, str) and name:
                    if id(value) not in seen:
                        inner[f"{place}.{name}" if place else name] = value
                    seen.add(id(value))
        level = inner
    return found


def _listed(entries: Mapping[Any, object]) -> str:
    return first_names(
        tuple(f"{name} ({kind_of(value)})" for name, value in entries.items())
    )


def kind_of(value: object) -> str:
    """Returns the kind of a value from a file, for lists and errors."""
    if isinstance(value, UnreadTensor):
        return value.kind
    if isinstance(value, dict):
        return "dict"
    return "tensor" if isinstance(value, Tensor) else type(value).__name__
