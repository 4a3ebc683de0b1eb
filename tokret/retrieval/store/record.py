"""What a store says of itself: whose descriptors, of which images, made how."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tokret.errors import UserError

# Raised whenever the same weights would give other descriptors, so that old stores
# are not gone on with.
FORM = 1
# About 100 bytes an image.
MAX_BYTES = 2**31
Size = tuple[int, int]
Box = tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True)
class Images:
    """N images, in the order of the rows.

    Attributes:
      names: what each is called.
      sizes: height and width of what was looked at, in pixels; 0, 0 where the photo
        could not be read.
      boxes: the part of the photo that was looked at, x0, y0, x1, y1; None for all.
      digests: of each encoded photo.
    """

    names: tuple[str, ...]
    sizes: tuple[Size, ...]
    boxes: tuple[Box | None, ...]
    digests: tuple[str, ...]

    def __len__(self) -> int:
        """N."""
        return len(self.names)


@dataclasses.dataclass(frozen=True)
class Record:
    """What must be the same for two rows to stand in one store.

    Attributes:
      model: the model's description: `config.model`.
      weights: `weights_digest` of its variables.
      preprocessing: longest side, scales, interpolation.
      images: the list of images.
    """

    model: Mapping[str, Any]
    weights: str
    preprocessing: Mapping[str, Any]
    images: Images

    def fields(self) -> dict[str, Any]:
        """Everything, in types of JSON."""
        return {
            "form": FORM,
            "model": dict(self.model),
            "weights": self.weights,
            "preprocessing": dict(self.preprocessing),
            "names": self.images.names,
            "sizes": self.images.sizes,
            "boxes": self.images.boxes,
            "digests": self.images.digests,
        }

    def difference(self, other: "Record") -> str | None:
        """Names the first thing in which another record differs; None if nothing does.

        The other's value comes first.
        """
        return maker_difference(self, other) or _other_images(self.images, other.images)


def maker_difference(ours: Record, theirs: Record) -> str | None:
    """`Record.difference` in all but the images."""
    if ours.weights != theirs.weights:
        return f"weights: digest {theirs.weights} and {ours.weights}"
    for group in ("model", "preprocessing"):
        a, b = getattr(theirs, group), getattr(ours, group)
        for name in sorted(a.keys() | b.keys()):
            if a.get(name) != b.get(name):
                return f"{group}.{name}: {a.get(name)!r} and {b.get(name)!r}"
    return None


def _other_images(ours: Images, theirs: Images) -> str | None:
    if len(ours) != len(theirs):
        return f"images: {len(theirs)} and {len(ours)} of them"
    for field in ("names", "digests", "boxes", "sizes"):
        pairs = zip(getattr(theirs, field), getattr(ours, field), strict=True)
        for row, (a, b) in enumerate(pairs):
            if a != b:
                what = "photos" if field == "digests" else field
                return f"{what}: {a!r} and {b!r} of image {row}, {ours.names[row]!r}"
    return None


def weights_digest(variables: Any) -> str:
    """A digest of a model's parameters and statistics, wherever they came from.

    Args:
      variables: a tree of arrays; their names, dtypes, shapes and bytes count.
    """
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(variables)[0]:
        array = np.ascontiguousarray(leaf)
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]


def photo_digest(encoded: bytes) -> str:
    """A digest of a photo's file."""
    return hashlib.blake2b(encoded, digest_size=8).hexdigest()


def to_text(fields: Mapping[str, Any]) -> str:
    """JSON with a line for each field; the same fields give the same text."""
    lines = [
        f"{json.dumps(name)}: {json.dumps(value, sort_keys=True, allow_nan=False)}"
        for name, value in fields.items()
    ]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def read_fields(path: Path) -> dict[str, Any]:
    """Reads what `to_text` gave.

    Raises:
      UserError: the file cannot be read, or is something else.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path}: larger than any record of a store")
        fields = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise _damaged(path, "is not JSON") from error
    if not isinstance(fields, dict):
        raise _damaged(path, "is no object")
    return fields


def to_record(fields: Mapping[str, Any], path: Path) -> Record:
    """Reads a record off its fields.

    Raises:
      UserError: a field is missing or cannot be.
    """
    if fields.get("form") != FORM:
        raise UserError(
            f"{path}: form: {fields.get('form')!r} and {FORM}; another version of "
            "tokret made it: remove the folder to describe its photos again"
        )
    for field, kind in (("model", dict), ("preprocessing", dict), ("weights", str)):
        if not isinstance(fields.get(field), kind):
            raise _damaged(path, f"{field} cannot be so")
    checks = {"names": _is_name, "sizes": _is_size, "boxes": _is_box, "digests": _is_id}
    columns: dict[str, tuple[Any, ...]] = {}
    for field, check in checks.items():
        column = fields.get(field)
        if not isinstance(column, list) or not all(check(value) for value in column):
            raise _damaged(path, f"{field} cannot be so")
        columns[field] = tuple(tuple(v) if isinstance(v, list) else v for v in column)
    if len({len(column) for column in columns.values()}) > 1:
        raise _damaged(path, "names, sizes, boxes and digests differ in length")
    model, weights = fields["model"], fields["weights"]
    return Record(model, weights, fields["preprocessing"], Images(**columns))


def _damaged(path: Path, what: str) -> UserError:
    return UserError(f"{path}: {what}; damaged: remove the folder and describe again")


def _is_name(value: object) -> bool:
    return isinstance(value, str)


def _is_id(value: object) -> bool:
    return isinstance(value, str) and len(value) <= 64


def _is_size(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(type(side) is int and side >= 0 for side in value)
    )


def _is_box(value: object) -> bool:
    if value is None:
        return True
    numbers = (int, float)
    return (
        isinstance(value, list)
        and len(value) == 4
        and all(type(side) in numbers for side in value)
    )
