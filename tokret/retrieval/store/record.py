"""The provenance of a store: which model's descriptors, of which images, made how."""

import hashlib
from typing import Annotated, Any

import jax
import msgspec
import numpy as np

Side = Annotated[int, msgspec.Meta(ge=0)]
Box = tuple[float, float, float, float]
Digest = Annotated[str, msgspec.Meta(max_length=64)]


class Images(msgspec.Struct, frozen=True):
    """N images, in the order of the rows."""

    names: tuple[str, ...]
    # height and width of the view, in pixels; 0, 0 where the photo could not be read
    sizes: tuple[tuple[Side, Side], ...]
    # the part of the photo that is the view, x0, y0, x1, y1; None for all
    boxes: tuple[Box | None, ...]
    digests: tuple[Digest, ...]  # of each encoded photo

    def __post_init__(self) -> None:
        """Checks the lengths."""
        if len(set(map(len, (self.names, self.sizes, self.boxes, self.digests)))) > 1:
            raise ValueError("names, sizes, boxes and digests differ in length")

    def __len__(self) -> int:
        """N."""
        return len(self.names)


class Record(msgspec.Struct, frozen=True):
    """What two rows must have in common to be in one store."""

    model: dict[str, Any]  # the model's fields in the config
    weights: str  # `weights_digest` of its variables
    preprocessing: dict[str, Any]  # longest side, scales, interpolation
    images: Images

    def difference(self, other: "Record") -> str | None:
        """Names the first field in which another record differs; None if none does.

        The other's value comes first.
        """
        found = extraction_difference(self, other)
        return found or _images_difference(self.images, other.images)


def extraction_difference(ours: Record, theirs: Record) -> str | None:
    """`Record.difference` without the images."""
    if ours.weights != theirs.weights:
        return f"weights: digest {theirs.weights} and {ours.weights}"
    for group in ("model", "preprocessing"):
        a, b = getattr(theirs, group), getattr(ours, group)
        for name in sorted(a.keys() | b.keys()):
            if a.get(name) != b.get(name):
                return f"{group}.{name}: {a.get(name)!r} and {b.get(name)!r}"
    return None


def _images_difference(ours: Images, theirs: Images) -> str | None:
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
    """A digest of a tree of arrays: of their names, dtypes, shapes and bytes."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(variables)[0]:
        array = np.ascontiguousarray(leaf)
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]
