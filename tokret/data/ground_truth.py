"""Ground truth of the Revisited form: which images answer which query.

Radenovic et al., "Revisiting Oxford and Paris: Large-Scale Image Retrieval
Benchmarking", CVPR 2018: a mapping with `imlist` (names of the database's images),
`qimlist` (names of the queries) and `gnd`, for each query the lists `easy`, `hard` and
`junk` of indices into `imlist` and the query's box `bbx`.

The benchmarks of 2007 (Philbin et al., CVPR 2007) are told with `ok` instead, the good
and the ok images together, and `junk`: they are read as easy, and Medium, whose
positives are easy and hard, is their protocol.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from tokret.errors import UserError
from tokret.io import restricted_pickle as plain_pickle
from tokret.shapes import Float, Int

# The largest published ground truth has 0.3 MB; this leaves room for a million names.
MAX_BYTES = 64 * 2**20
MAX_SIDE = 1e9  # pixels
LISTS = ("easy", "hard", "junk")


@dataclass(frozen=True)
class GroundTruth:
    """A benchmark of N images and Q queries.

    Attributes:
      name: what results are filed under.
      images: N names, in the order of the database's descriptors.
      queries: Q names, in the order of the queries' descriptors.
      boxes: [Q, 4] float64 x0, y0, x1, y1 in pixels of the query's whole photo, or
        None where whole photos are the queries.
      easy: for each query, int32 indices into `images` that show the object clearly.
      hard: the same, that show it under difficult conditions.
      junk: the same, that count neither as right nor as wrong.
    """

    name: str
    images: tuple[str, ...]
    queries: tuple[str, ...]
    boxes: Float[np.ndarray, "q 4"] | None
    easy: tuple[Int[np.ndarray, " _"], ...]
    hard: tuple[Int[np.ndarray, " _"], ...]
    junk: tuple[Int[np.ndarray, " _"], ...]


def read_ground_truth(path: str | Path) -> GroundTruth:
    """Reads a ground truth file, without running anything that is in it.

    Args:
      path: gnd_NAME.pkl or gnd_NAME.json; without `gnd_` the whole stem is the name.

    Returns:
      The validated benchmark.

    Raises:
      UserError: the file is missing, too large, malformed or asks to run code, or what
        it says cannot be a benchmark.
    """
    path = Path(path)
    readers = {".pkl": _from_pickle, ".json": _from_json}
    if path.suffix not in readers:
        raise UserError(f"{path}: ground truth is a .pkl or a .json file")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise UserError(
            f"{path}: larger than {MAX_BYTES >> 20} MiB, no ground truth is"
        )
    mapping = readers[path.suffix](data, path)
    return from_revisited(mapping, path.stem.removeprefix("gnd_"), source=str(path))


def from_revisited(
    mapping: object, name: str, source: str = "ground truth"
) -> GroundTruth:
    """Validates a ground truth of the Revisited form.

    Args:
      mapping: a dict of `imlist`, `qimlist` and `gnd`; other keys are passed over.
      name: the benchmark's name.
      source: what errors call it, such as the file's path.

    Returns:
      The benchmark.

    Raises:
      UserError: names the field that is missing, of the wrong type, out of range or
        contradicts another; or no query has a positive.
    """
    if not name:
        raise UserError(f"{source}: the benchmark has no name, call it gnd_NAME")
    whole = _mapping(mapping, source)
    images = _names(_field(whole, "imlist", source), f"{source}: imlist")
    if len(set(images)) < len(images):
        raise UserError(f"{source}: imlist names an image twice, each has one index")
    queries = _names(_field(whole, "qimlist", source), f"{source}: qimlist")
    answers = _sequence(_field(whole, "gnd", source), f"{source}: gnd")
    if len(answers) != len(queries):
        raise UserError(
            f"{source}: gnd has {len(answers)} entries and qimlist {len(queries)} "
            "names, there must be one entry for each query"
        )
    entries = [
        _mapping(entry, f"{source}: gnd[{i}]") for i, entry in enumerate(answers)
    ]
    labelled = [
        _index_lists(entry, len(images), f"{source}: gnd[{i}]")
        for i, entry in enumerate(entries)
    ]
    if not any(len(lists["easy"]) + len(lists["hard"]) for lists in labelled):
        raise UserError(f"{source}: gnd has no positive (easy or hard) for any query")
    return GroundTruth(
        name=name,
        images=images,
        queries=queries,
        boxes=_boxes(entries, source),
        **{key: tuple(lists[key] for lists in labelled) for key in LISTS},
    )


def keep_queries(truth: GroundTruth, kept: Sequence[int]) -> GroundTruth:
    """Returns the benchmark with only these of its queries, in this order."""
    return dataclasses.replace(
        truth,
        queries=tuple(truth.queries[i] for i in kept),
        boxes=None if truth.boxes is None else truth.boxes[list(kept)],
        easy=tuple(truth.easy[i] for i in kept),
        hard=tuple(truth.hard[i] for i in kept),
        junk=tuple(truth.junk[i] for i in kept),
    )


def _from_pickle(data: bytes, path: Path) -> object:
    try:
        return plain_pickle.load(data)
    except plain_pickle.RefusedError as error:
        raise UserError(
            f"{path}: the pickle asks for {error}, which ground truth has no need of; "
            "nothing was run, get the file from a source that you trust"
        ) from error
    # A malformed pickle ends in nearly any exception: KeyError, EOFError, MemoryError.
    except Exception as error:
        raise UserError(
            f"{path}: cut or malformed pickle ({type(error).__name__}), get it again"
        ) from error


def _from_json(data: bytes, path: Path) -> object:
    # RecursionError: lists nested by the thousand.
    try:
        return json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{path}: malformed JSON ({type(error).__name__}: {str(error)[:80]}), "
            "mend it or get it again"
        ) from error


def _field(mapping: Mapping[Any, Any], key: str, where: str) -> object:
    if key not in mapping:
        raise UserError(
            f"{where}: no field {key!r}; the Revisited form has imlist, qimlist and "
            "gnd, and in each entry of gnd easy, hard and junk"
        )
    return mapping[key]


def _mapping(value: object, where: str) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise UserError(f"{where}: must be a dict, not {_kind(value)}")
    return value


def _sequence(value: object, where: str) -> Sequence[Any]:
    if isinstance(value, np.ndarray) and value.ndim == 1:
        return list(value.tolist())
    if not isinstance(value, list | tuple):
        raise UserError(f"{where}: must be a list, not {_kind(value)}")
    return value


def _names(value: object, where: str) -> tuple[str, ...]:
    """Image names; one that leads out of the photos' folder is refused."""
    names = _sequence(value, where)
    if not names:
        raise UserError(f"{where}: is empty, and there must be at least one name")
    for i, name in enumerate(names):
        if not isinstance(name, str) or not name or not name.isprintable():
            raise UserError(f"{where}[{i}]: must be an image's name, not {_kind(name)}")
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise UserError(f"{where}[{i}]: leads out of the photos' folder")
    return tuple(names)


def _index_lists(
    entry: Mapping[Any, Any], total: int, where: str
) -> dict[str, Int[np.ndarray, " _"]]:
    """The three lists of one query, checked to share no index."""
    if "ok" in entry and "easy" not in entry and "hard" not in entry:
        entry = {**entry, "easy": entry["ok"], "hard": ()}
    lists = {
        key: _indices(_field(entry, key, where), total, f"{where}.{key}")
        for key in LISTS
    }
    together = np.sort(np.concatenate(list(lists.values())))
    twice = together[1:][together[1:] == together[:-1]]
    if len(twice):
        raise UserError(
            f"{where}: image {twice[0]} stands twice in easy, hard and junk together, "
            "and may stand once"
        )
    return lists


def _indices(value: object, total: int, where: str) -> Int[np.ndarray, " _"]:
    indices = _sequence(value, where)
    for i, index in enumerate(indices):
        if isinstance(index, bool) or not isinstance(index, int):
            raise UserError(f"{where}[{i}]: must be an index, not {_kind(index)}")
        if not 0 <= index < total:
            raise UserError(
                f"{where}[{i}]: is no index into imlist, which has {total} names: they "
                f"run from 0 to {total - 1}"
            )
    return np.array(indices, np.int32)


def _boxes(
    entries: Sequence[Mapping[Any, Any]], source: str
) -> Float[np.ndarray, "q 4"] | None:
    """All the queries' boxes; either each query has one or none has."""
    missing = [i for i, entry in enumerate(entries) if "bbx" not in entry]
    if len(missing) == len(entries):
        return None
    if missing:
        raise UserError(f"{source}: gnd[{missing[0]}]: no field 'bbx', others have one")
    return np.array(
        [_box(e["bbx"], f"{source}: gnd[{i}].bbx") for i, e in enumerate(entries)]
    )


def _box(value: object, where: str) -> list[float]:
    sides = _sequence(value, where)
    if len(sides) != 4 or not all(_is_coordinate(side) for side in sides):
        raise UserError(
            f"{where}: must be four finite numbers of pixels x0, y0, x1, y1"
        )
    x0, y0, x1, y1 = (float(side) for side in sides)
    if not (x0 < x1 and y0 < y1):
        raise UserError(
            f"{where}: ({x0:g}, {y0:g}, {x1:g}, {y1:g}) has no area, x0 < x1 and "
            "y0 < y1 must hold"
        )
    return [x0, y0, x1, y1]


def _is_coordinate(value: object) -> bool:
    """A number that a photo's coordinate can be; NaN fails both comparisons."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return -MAX_SIDE < value < MAX_SIDE


def _kind(value: object) -> str:
    """A value in words; never its text, which may be long or hostile."""
    if isinstance(value, str):
        return "a string" if value.isprintable() and value else "an empty or odd string"
    return f"a value of type {type(value).__name__}"
