"""Ground truth in the Revisited format: which images are relevant to which query.

Radenovic et al., "Revisiting Oxford and Paris: Large-Scale Image Retrieval
Benchmarking", CVPR 2018: a mapping with `imlist` (names of the database's images),
`qimlist` (names of the queries) and `gnd`, for each query the lists `easy`, `hard` and
`junk` of indices into `imlist` and the query's box `bbx`.

Files of the benchmarks of 2007 (Philbin et al., CVPR 2007) have `ok` instead, the good
and the ok images together, and `junk`: they are read as easy, and Medium, whose
positives are easy and hard, is their protocol.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import msgspec
import numpy as np

from tokret.errors import UserError
from tokret.io import restricted_pickle
from tokret.io.regular_files import read_file
from tokret.names import is_valid_name
from tokret.shapes import Float, Int

# The largest published ground truth has 0.3 MB; this suffices for a million names.
MAX_BYTES = 64 * 2**20
MAX_SIDE = 1e9  # pixels
LISTS = ("easy", "hard", "junk")

_Names = Annotated[list[Annotated[str, msgspec.Meta(min_length=1)]],
                   msgspec.Meta(min_length=1)]  # fmt: skip
_Indices = list[Annotated[int, msgspec.Meta(ge=0, lt=2**31)]]


class _Query(msgspec.Struct):
    """An entry of `gnd`."""

    junk: _Indices
    easy: _Indices | None = None
    hard: _Indices | None = None
    ok: _Indices | None = None
    bbx: tuple[float, float, float, float] | None = None


class _Mapping(msgspec.Struct):
    """The Revisited format."""

    imlist: _Names
    qimlist: _Names
    gnd: list[_Query]


@dataclass(frozen=True)
class GroundTruth:
    """A benchmark of N images and Q queries.

    Attributes:
      name: of the benchmark.
      images: N names, in the order of the database's descriptors.
      queries: Q names, in the order of the queries' descriptors.
      boxes: [Q, 4] float64 x0, y0, x1, y1 in pixels of the query's whole photo, or
        None where whole photos are the queries.
      easy: for each query, int32 indices into `images` that show the object clearly.
      hard: the same, that show it under difficult conditions.
      junk: the same, that are ignored.
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
      UserError: if the file is missing, too large or malformed, would run code, or is
        not a valid benchmark.
    """
    path = Path(path)
    if path.suffix not in (".pkl", ".json"):
        raise UserError(f"{path}: ground truth is a .pkl or a .json file")
    data = read_file(path, MAX_BYTES)
    decode = restricted_pickle.load if path.suffix == ".pkl" else msgspec.json.decode
    try:
        mapping = decode(data)
    except restricted_pickle.RefusedError as error:
        raise UserError(
            f"{path}: the pickle contains {error}, which ground truth has no need of; "
            "nothing was run, download the file from a source that you trust"
        ) from error
    # A malformed pickle ends in nearly any exception: KeyError, EOFError, MemoryError.
    except Exception as error:
        raise UserError(
            f"{path}: truncated or malformed {path.suffix[1:]} file "
            f"({type(error).__name__}: {str(error)[:80]}), download it again"
        ) from error
    return from_revisited(mapping, path.stem.removeprefix("gnd_"), source=str(path))


def from_revisited(
    mapping: object, name: str, source: str = "ground truth"
) -> GroundTruth:
    """Validates a ground truth in the Revisited format.

    Args:
      mapping: a dict of `imlist`, `qimlist` and `gnd`; other keys are ignored.
      name: the benchmark's name.
      source: for errors, such as the file's path.

    Returns:
      The benchmark.

    Raises:
      UserError: names the field that is missing, of the wrong type, out of range or
        contradicts another; or no query has a positive.
    """
    if not name:
        raise UserError(f"{source}: the benchmark has no name, rename it to gnd_NAME")
    truth = _convert(mapping, source)
    for field in ("imlist", "qimlist"):
        _check_names(getattr(truth, field), f"{source}: {field}")
    if len(set(truth.imlist)) < len(truth.imlist):
        raise UserError(f"{source}: imlist names an image twice, each has one index")
    if len(truth.gnd) != len(truth.qimlist):
        raise UserError(
            f"{source}: gnd has {len(truth.gnd)} entries and qimlist "
            f"{len(truth.qimlist)} names, there must be one entry for each query"
        )
    labelled = [
        _index_lists(query, len(truth.imlist), f"{source}: gnd[{i}]")
        for i, query in enumerate(truth.gnd)
    ]
    if not any(len(lists["easy"]) + len(lists["hard"]) for lists in labelled):
        raise UserError(f"{source}: gnd has no positive (easy or hard) for any query")
    return GroundTruth(
        name=name,
        images=tuple(truth.imlist),
        queries=tuple(truth.qimlist),
        boxes=_boxes(truth.gnd, source),
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


def _convert(mapping: object, source: str) -> _Mapping:
    """Checks the types of all fields; no error contains a value, which may be long."""
    if not isinstance(mapping, dict):
        kind = type(mapping).__name__
        raise UserError(f"{source}: must be a dict of imlist, qimlist, gnd, not {kind}")
    known = {key: mapping[key] for key in _Mapping.__struct_fields__ if key in mapping}
    try:
        # Bytes stay bytes, which are no names; as built-ins they would become base64.
        plain = msgspec.to_builtins(
            known, builtin_types=(bytes,), enc_hook=_array_to_list
        )
        return msgspec.convert(plain, _Mapping)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `$")
        place = f"{path.strip('.`')}: " if path else ""
        raise UserError(f"{source}: {place}{problem}") from error
    except (RecursionError, TypeError, ValueError) as error:
        raise UserError(f"{source}: {type(error).__name__}: {error}") from error


def _array_to_list(value: Any) -> list[Any]:
    if isinstance(value, np.ndarray) and value.ndim == 1:
        return list(value.tolist())
    raise TypeError(f"a value of type {type(value).__name__}")


def _check_names(names: Sequence[str], field: str) -> None:
    """Refuses image names that lead out of the photos' folder."""
    for i, name in enumerate(names):
        if not is_valid_name(name):
            raise UserError(f"{field}[{i}]: is not text of one line")
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise UserError(f"{field}[{i}]: leads out of the photos' folder")


def _index_lists(
    query: _Query, total: int, field: str
) -> dict[str, Int[np.ndarray, " _"]]:
    """The three lists of one query, checked to have no index in common."""
    if query.ok is not None and query.easy is None and query.hard is None:
        query.easy, query.hard = query.ok, []
    lists = {}
    for key in LISTS:
        if getattr(query, key) is None:
            raise UserError(f"{field}: Object missing required field `{key}`")
        lists[key] = np.array(getattr(query, key), np.int32)
        outside = np.flatnonzero(lists[key] >= total)
        if len(outside):
            raise UserError(
                f"{field}.{key}[{outside[0]}]: is no index into imlist, which has "
                f"{total} names: they run from 0 to {total - 1}"
            )
    together = np.sort(np.concatenate(list(lists.values())))
    repeated = together[1:][together[1:] == together[:-1]]
    if len(repeated):
        raise UserError(
            f"{field}: image {repeated[0]} is twice in easy, hard and junk together, "
            "and may be once"
        )
    return lists


def _boxes(queries: Sequence[_Query], source: str) -> Float[np.ndarray, "q 4"] | None:
    """All the queries' boxes; either each query has one or none has."""
    missing = [i for i, query in enumerate(queries) if query.bbx is None]
    if len(missing) == len(queries):
        return None
    if missing:
        raise UserError(f"{source}: gnd[{missing[0]}]: no field 'bbx', others have one")
    boxes = np.array([query.bbx for query in queries], np.float64)
    # NaN fails both comparisons.
    valid = (np.abs(boxes) < MAX_SIDE).all(1) & (boxes[:, :2] < boxes[:, 2:]).all(1)
    if not valid.all():
        i = int(np.argmin(valid))
        raise UserError(
            f"{source}: gnd[{i}].bbx: must be finite x0, y0, x1, y1 in pixels with "
            "x0 < x1 and y0 < y1"
        )
    return boxes
